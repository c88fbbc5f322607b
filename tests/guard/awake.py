"""Every guard with settings that make it act within a few small batches, and hand-made batches to look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.core.guard import Chain, Guard, Judgement, Look
from acclimate.guard.asr import ASRGuard
from acclimate.guard.default import DefaultGuard
from acclimate.guard.detectors.page_hinkley import PageHinkley
from acclimate.guard.drift import DriftGuard
from acclimate.guard.rdumb import RDumbGuard
from acclimate.guard.recover import RecoverGuard
from acclimate.guard.sar import SARGuard
from acclimate.guard.shift_test import ShiftTest
from acclimate.guard.trust_region import TrustRegion

TOUCHY = PageHinkley(min_instances=2, delta=0.0, threshold=0.0)
"""Finds a change in every second number."""

AWAKE: dict[str, Guard] = {
    "default": DefaultGuard(memory=4.0, patience=2, share=0.5),
    "sar": SARGuard(recovery=0.772, momentum=0.5),
    "rdumb": RDumbGuard(interval=2),
    "asr": ASRGuard(margin=0.0, share=0.5),
    "betting": ShiftTest(alpha=0.5, calibration=5, patience=8, share=0.5),
    "drift": DriftGuard(detector=TOUCHY, signal="loss", action="hold", lasting=2),
    "recover": RecoverGuard(memory=1.0, drop=0.01, near=0.0, share=0.5),
    "trust_region": TrustRegion(radius=0.002),
}
"""By registered name."""

MORE: dict[str, Guard] = {
    "drift_recover": DriftGuard(detector=TOUCHY, signal="flips", action="recover", lasting=2),
    "chain": Chain(members=(AWAKE["asr"], AWAKE["recover"], AWAKE["default"])),
}


@dataclass(frozen=True, kw_only=True)
class Scripted(Guard):
    """Decides as it is told, batch by batch; on others, nothing."""

    name: ClassVar[str] = "scripted"
    keeps_good: ClassVar[bool] = True
    script: dict[int, Judgement] = field(default_factory=dict)

    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        return self.script.get(look.batches, Judgement())


def kept_by(guard: Guard) -> dict[str, Tensor]:
    """What a guard keeps, outside of any adaptation."""
    kept: dict[str, Tensor] = {}

    def keep(name: str, initial: Tensor, /, *, fixed: bool = False) -> Tensor:
        kept[name] = initial.to(torch.float64).clone()
        return kept[name]

    guard.setup(keep)
    return kept


def look(logits: Tensor, source: Tensor | None = None, arbiter: Tensor | None = None, **given: Any) -> Look:
    """A batch whose every row the source answers too."""
    given = {"notes": {}, "travel": lambda: (0.0, 0.0, 0.0), "batches": 0, "generator": torch.Generator(), **given}
    return Look(
        logits,
        torch.arange(len(logits)),
        source=lambda rows: (logits if source is None else source)[rows],
        arbiter=lambda: None if arbiter is None else lambda rows: arbiter[rows],
        **given,
    )
