"""SURGEON's comparison: error and what backward holds, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from acclimate.experiment.plots.peak import Point, against_peak
from acclimate.experiment.reproduce.contenders import Contender, contenders
from acclimate.experiment.reproduce.continual import corruption_error
from acclimate.experiment.reproduce.part import Cell, Drawing, Grid, Line, Part, Shown, average, spread
from acclimate.experiment.reproduce.published import CORRUPTIONS
from acclimate.experiment.reproduce.published_surgeon import CONTINUAL, SURGEON, published_numbers
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial
from acclimate.experiment.tabulate import abbreviation

__all__ = ["Holdings", "Peak"]

_HEAD = [
    "mean", "published", "± seeds", "held, MB", "of stock", "allocator, MB", "cache, MiB",
    "published cache, MiB", "time, bn = 1",
]  # fmt: skip
_AIMS = (
    ("surgeon", "full tuning"),
    ("tent, exact", "tent"),
    ("tent, 4-bit", "tent"),
    ("static pruning at equal bytes", "surgeon"),
    ("gradient checkpointing", "full tuning"),
)

Found = Mapping[Contender, list[Outcome] | None]


class _Comparison(Part):
    """The trials that the table and the figure share."""

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        return [trial for each in contenders(request) for trial in each.trials(request, store, failed)[0]]

    def _found(self, request: Request, store: Store, failed: Mapping[str, str]) -> Found:
        return {each: each.outcomes(request, store, failed) for each in contenders(request)}

    def _reasons(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[str]:
        told: list[str] = []
        for each in contenders(request):
            trials, reason = each.trials(request, store, failed)
            reason = reason or next((failed[trial.key] for trial in trials if trial.key in failed), "")
            told += [f"{each.name} did not run: {reason}"] if reason else []
        return told


class Holdings(_Comparison):
    """One row for each method with what its backward keeps: error, bytes, time, and what is published."""

    key = "table-memory"

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        found = self._found(request, store, failed)
        base = next((outcomes for each, outcomes in found.items() if each.name == "bn"), None)
        clock = average(base, lambda outcome: outcome.facts["milliseconds"])
        lines = [
            Line("measured", each.name, _cells(each, outcomes, request, clock)) for each, outcomes in found.items()
        ]
        notes = [
            "Held is what autograd keeps for backward at the peak of a step, unique storages, the probe included: "
            "measured at the first batch of each corruption, mean over them; MB are 10^6 bytes. Of stock: divided by "
            "what PyTorch would have kept in the same step. Allocator is the peak of torch's allocator during a "
            "step, above what was there before it, at the first corruption.",
            f"Cache is {SURGEON}'s own count, 4 bytes x share x size over the inputs of layers that learn, in MiB: "
            "what its tables have; see the memory page for what is not in it.",
            "Full tuning, its variants, surgeon and its ablations minimise plain entropy at one rate, that of the "
            "released code with selection and consistency; the rates without are not published. CSS: certain answers "
            "only; CR: consistency with a view. No G, no M: shares without gradient or memory importance. Static "
            "pruning has one share for all layers and all batches, with which a step holds what surgeon's held in the "
            "mean.",
            *_aims(found),
            request.elsewhere(),
            *self._reasons(request, store, failed),
        ]
        grids = [Grid(key=self.key, head=_HEAD, lines=lines), _by_corruption(found, request)]
        return Shown(
            title="SURGEON and memory: error in percent and what backward holds",
            protocol=request.protocol(),
            grids=grids,
            notes=[note for note in notes if note],
        )


class Peak(_Comparison):
    """Error over the bytes held, a point for each row that is complete."""

    key = "figure-peak"

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        points: list[Point] = []
        for each, outcomes in self._found(request, store, failed).items():
            held, mean = _mean(outcomes, "held"), average(outcomes, Outcome.mean_error)
            if held is not None and mean is not None and mean == mean:
                points.append(Point(label=each.name, peak=held, error=mean, group=each.group))
        words = "Mean error of each method over the bytes that its backward keeps at the peak"
        drawings = [Drawing(key=self.key, figure=against_peak(points), alternative=words)] if points else []
        return Shown(
            title="SURGEON and memory: error over bytes held",
            protocol=request.protocol(),
            drawings=drawings,
            notes=self._reasons(request, store, failed),
        )


def _fact(name: str) -> Callable[[Outcome], float | None]:
    """Mean over segments of something that was measured; None where it was not."""

    def number(outcome: Outcome) -> float | None:
        values: Sequence[float | None] = outcome.facts.get(name) or ()
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    return number


def _mean(outcomes: Sequence[Outcome] | None, name: str) -> float | None:
    return average(outcomes, _fact(name))


def _cells(each: Contender, outcomes: Sequence[Outcome] | None, request: Request, clock: float | None) -> list[Cell]:
    error, cache = published_numbers(request.published, each.published)
    held, stock, device = (_mean(outcomes, name) for name in ("held", "stock", "device"))
    time = average(outcomes, lambda outcome: outcome.facts["milliseconds"])
    return [
        average(outcomes, lambda outcome: outcome.mean_error()),
        error,
        spread(outcomes),
        None if held is None else f"{held / 1e6:.2f}",
        None if held is None or not stock else f"{held / stock:.3f}",
        None if device is None else device / 1e6,
        _mean(outcomes, "cache"),
        cache,
        None if time is None or not clock else time / clock,
    ]


def _aims(found: Found) -> list[str]:
    """Pairs that the comparison is made for, in words."""
    known = {each.name: outcomes for each, outcomes in found.items() if outcomes is not None}
    told: list[str] = []
    for name, other in _AIMS:
        held, whole = _mean(known.get(name), "held"), _mean(known.get(other), "held")
        error, base = (average(known.get(each), lambda outcome: outcome.mean_error()) for each in (name, other))
        if held is not None and whole and error is not None and base is not None:
            told.append(f"{name} holds {held / whole:.3f} of {other}'s bytes, {error - base:+.2f} points of error")
    return [f"{'; '.join(told)}."] if told else []


def _by_corruption(found: Found, request: Request) -> Grid:
    published = CONTINUAL.get(request.published, {})
    lines: list[Line] = []
    for each, outcomes in found.items():
        cells = [None if outcomes is None else corruption_error(outcomes, corruption) for corruption in CORRUPTIONS]
        lines.append(Line("measured", each.name, [*cells, average(outcomes, lambda outcome: outcome.mean_error())]))
        if each.published in published:
            lines.append(Line("published", f"{each.name}, published", published[each.published]))
    head = [*map(abbreviation, CORRUPTIONS), "mean"]
    return Grid(key="table-memory-corruptions", head=head, lines=lines, title="Error under each corruption")
