"""Who stands in SURGEON's comparison: methods, what their backward keeps, and what they are called where published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from acclimate.experiment.reproduce.benchmarks import Benchmark, method_spec
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial
from acclimate.memory import SurgeonSavings

__all__ = ["ALL", "NONE", "NORMS", "Contender", "contenders"]

NONE, NORMS, ALL = "no backward", "norms", "all weights"
_PLAIN: Mapping[str, Any] = {"certain": False, "consistency": 0.0}
_CERTAIN: Mapping[str, Any] = {"certain": True, "consistency": 0.0}
_BOTH: Mapping[str, Any] = {"certain": True, "consistency": 0.01}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row: a method with changes, the group it belongs to, its published name.

    With `equal_to`, a static share for all layers, with which a step holds as much as that contender's did.
    """

    name: str
    group: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    published: str = ""
    equal_to: Contender | None = None

    def trials(self, request: Request, store: Store, failed: Mapping[str, str]) -> tuple[list[Trial], str]:
        """Its trials as far as they can be known, and the reason where they cannot be."""
        trials = [replace(trial, measured=True) for trial in request.trials(self.method, **self.changes)]
        try:
            trials[0].build()
        except ValueError as error:
            return [], str(error)
        if self.equal_to is None:
            return trials, ""
        others, reason = self.equal_to.trials(request, store, failed)
        if reason or any(other.key in failed for other in others):
            return [], f"{self.equal_to.name} did not run, whose bytes it is to hold."
        known = [(trial, store.get(other)) for trial, other in zip(trials, others, strict=True)]
        return [replace(trial, equal_bytes=_held(other)) for trial, other in known if other is not None], ""

    def outcomes(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Outcome] | None:
        """What came of its trials; None while a seed is missing."""
        trials, _ = self.trials(request, store, failed)
        return store.all(trials) if len(trials) == len(request.seeds) else None


def _held(outcome: Outcome) -> int:
    return round(fmean(outcome.facts["held"]))


def contenders(request: Request) -> list[Contender]:
    """All of them, or those whose method was asked for."""
    chosen = {name.partition(":")[0] for name in request.methods}
    without = {name.partition(":")[0] for name in request.without}
    standard = [each for part in (_tent, _full, _surgeon) for each in part(request.benchmark)]
    known = {each.method.partition(":")[0] for each in standard}
    others = [
        Contender(name=name, group="others", method=name)
        for name in request.methods
        if name.partition(":")[0] not in known
    ]
    bases = [(each, each.method.partition(":")[0]) for each in standard]
    return [each for each, base in bases if base not in without and (not chosen or base in chosen)] + others


def _tent(benchmark: Benchmark) -> Sequence[Contender]:
    tent = method_spec("tent", benchmark)
    return (
        Contender(name="source", group=NONE, method="source", published="source"),
        Contender(name="bn", group=NONE, method=method_spec("bn", benchmark), published="bn"),
        Contender(name="tent", group=NORMS, method=tent, published="tent"),
        Contender(name="tent, exact", group=NORMS, method=tent, changes={"memory": "exact"}),
        Contender(name="tent, 4-bit", group=NORMS, method=tent, changes={"memory": "quantized:4-bit"}),
    )


def _full(benchmark: Benchmark) -> Sequence[Contender]:
    kinds = {
        "full tuning": "stock",
        "gradient checkpointing": "checkpointed",
        "full tuning, 8-bit": "quantized:8-bit",
        "full tuning, 4-bit": "quantized:4-bit",
    }
    return [
        Contender(
            name=name,
            group=ALL,
            method=f"surgeon:{benchmark.published}",
            changes={**_PLAIN, "memory": memory},
            published="full_tuning" if memory == "stock" else "",
        )
        for name, memory in kinds.items()
    ]


def _surgeon(benchmark: Benchmark) -> Sequence[Contender]:
    def row(name: str, published: str, changes: Mapping[str, Any], *, norms: bool = False) -> Contender:
        return Contender(
            name=name,
            group=NORMS if norms else ALL,
            method=f"surgeon:{benchmark.published}{'-bn' if norms else ''}",
            changes=changes,
            published=published,
        )

    plain = row("surgeon", "surgeon", _PLAIN)
    no_gradient, no_memory = SurgeonSavings(gradient_importance=False), SurgeonSavings(memory_importance=False)
    return (
        plain,
        row("surgeon, no G", "no_gradient", {**_PLAIN, "memory": no_gradient}),
        row("surgeon, no M", "no_memory", {**_PLAIN, "memory": no_memory}),
        replace(plain, name="static pruning at equal bytes", published="", equal_to=plain),
        row("surgeon + CSS", "surgeon+css", _CERTAIN),
        row("surgeon + CSS + CR", "surgeon+css+cr", _BOTH),
        row("surgeon-bn", "surgeon-bn", _PLAIN, norms=True),
        row("surgeon-bn + CSS", "surgeon-bn+css", _CERTAIN, norms=True),
        row("surgeon-bn + CSS + CR", "surgeon-bn+css+cr", _BOTH, norms=True),
        row("surgeon, as released", "surgeon+css+cr", {"faithful": True, "memory": "surgeon:faithful"}),
    )
