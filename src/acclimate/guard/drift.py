"""A detector of change on a signal, and what to do when it finds one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from acclimate.core.config import between, one_of, positive, whole
from acclimate.core.guard import Guard, Judgement, Keep, Look, guards
from acclimate.guard.detectors.detector import Detector, detectors
from acclimate.guard.reading import SIGNALS, note

__all__ = ["DriftGuard"]


@guards.register("drift")
@dataclass(frozen=True, kw_only=True)
class DriftGuard(Guard):
    """Watch one number a batch with a detector of change, and act when it finds one.

    Signals: `entropy` and `concentration` of the batch's answers and the `loss` (entropy, where a method says none),
    as shares of ln C; `flips`, the share of rows that the source names differently; `distance` of the weights from the
    source's, in norms of those. Actions, at the batch of the alarm: `forget` everything learned; `recover` the last
    good state; `hold`: the source answers and nothing is learned, `shrink`: only a tenth (`kept_step`) of each step is
    kept, both for this batch and the `lasting - 1` that follow. Then the detector begins anew, because what it saw is
    over; while holding it sees nothing. With "recover", a state is good after every `lasting` batches without alarm.

    Arguments: `detector`, "adwin", "page-hinkley" or an instance, such as `Adwin(clock=1)`; `signal`; `action`;
    `lasting` >= 1, in batches; `kept_step` in (0, 1].
    Cost: no forward, for "flips" `n / N` of one for n rows; one more while the source answers. The detector's numbers
    (785 of ADWIN, 7 of Page-Hinkley) and two; with "recover" the bytes of weights and statistics again.
    Source: ADWIN, Bifet and Gavalda, SDM 2007; Page, Biometrika 1954. Their use as a guard is ours.
    Fails where a harmless change of domain changes the signal too: detectors see change, not harm. ADWIN by default
    looks every 32 batches only. With "recover", a state may be called good between a change and its alarm.

    Example: `acclimate.adapt(net, "tent", guard="drift")`.
    """

    detector: str | Detector = "adwin"
    signal: str = "entropy"
    action: str = "forget"
    lasting: int = 10
    kept_step: float = 0.1

    def check(self) -> None:
        object.__setattr__(self, "detector", detectors.build(self.detector))
        one_of(*SIGNALS, signal=self.signal)
        one_of("forget", "recover", "hold", "shrink", action=self.action)
        whole(1, lasting=self.lasting)
        positive(kept_step=self.kept_step)
        between(0, 1, kept_step=self.kept_step)

    def keeps(self) -> bool:
        return self.action == "recover"

    def setup(self, keep: Keep) -> None:
        keep("detector", cast("Detector", self.detector).initial())
        keep("left", torch.zeros(()))
        keep("calm", torch.zeros(()))

    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        left, calm = int(kept["left"]), int(kept["calm"])
        holding = self.action == "hold" and left > 0
        if look.frozen:
            return Judgement(hold=holding)
        signals, alarm = dict[str, float](), False
        if not holding:
            signals[self.signal] = value = SIGNALS[self.signal](look)
            if math.isfinite(value):
                alarm = cast("Detector", self.detector).update(kept["detector"], value)
        if alarm:
            kept["detector"].zero_()
            left, calm = self.lasting if self.action in ("hold", "shrink") else 0, -1
        acting = alarm or left > 0
        calm = (calm + 1) % self.lasting
        note(kept, left=float(max(left - 1, 0)), calm=float(calm))
        return Judgement(
            hold=acting and self.action == "hold",
            learn=not (acting and self.action == "hold"),
            shrink=self.kept_step if acting and self.action == "shrink" else 1.0,
            forget=float(alarm and self.action == "forget"),
            recover=alarm and self.action == "recover",
            good=calm == 0 and not alarm,
            reason=self._why(alarm) if acting else "",
            signals=signals,
        )

    def _why(self, alarm: bool) -> str:
        when = "has changed" if alarm else "changed a short while ago"
        return f"the {self.signal} {when} ({cast('Detector', self.detector).name}), action {self.action}"
