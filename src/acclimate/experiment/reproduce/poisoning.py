"""Attacks x methods, under guard and without: what becomes of benign rows during an attack and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from acclimate.core.method import methods
from acclimate.experiment.poison.attack import Attack, attacks
from acclimate.experiment.reproduce.part import Cell, Grid, Line, Part, Shown
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["Poisoning", "recovery"]

_METHODS = ("bn", "tent", "eata", "sar", "palm:default", "roid", "auto")
_NOBODY = "bystanders"
_ORDER = (_NOBODY, "invading", "invading-blind", "entropy", "wrong-labels", "noise", "flood", "stalled-camera")
_WINDOW = 10
_NEAR = 1.0
"""Batches, and points of error, by which a recovery is told."""

_MARGIN = 1.0


@dataclass(frozen=True, kw_only=True)
class _Halves:
    """Errors on benign rows in percent, by batch, and the share of answers held at the source."""

    attacked: float
    after: float
    course: np.ndarray
    held: float | None


class Poisoning(Part):
    """Errors on benign rows beside the source's and those among bystanders; how long damage lasts."""

    key = "table-poisoning"

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        found = _trials(request, "source", _NOBODY, guarded=False)
        for name in _attacks():
            for method in _rivals(request):
                found += _trials(request, method, name, guarded=False) + _trials(request, method, name, guarded=True)
        return found

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        source = _halves(store.all(_trials(request, "source", _NOBODY, guarded=False)))
        grids: list[Grid] = []
        margins: list[tuple[str, float, float]] = []
        for name in _attacks():
            lines: list[Line] = []
            for method in _rivals(request):
                free, guarded = (_known(request, store, method, name, guarded) for guarded in (False, True))
                if source is None or free is None or guarded is None:
                    continue
                quiet = [_known(request, store, method, _NOBODY, guarded) for guarded in (False, True)]
                back = [_told(each, calm) for each, calm in zip((free, guarded), quiet, strict=True)]
                cells: list[Cell] = [source.attacked, free.attacked, guarded.attacked, 100 * (guarded.held or 0)]
                cells += [source.after, free.after, guarded.after, *back]
                lines.append(Line("measured", method, cells))
                where = f"{method}, {name}"
                margins.append((where, guarded.attacked - source.attacked, guarded.after - source.after))
            grids.append(_grid(name, lines))
        lines = _claims(margins)
        claims = Grid(key="table-poisoning-claims", head=["under attack", "after"], lines=lines, title="In all")
        trials = [t for method in _rivals(request) for t in _trials(request, method, _NOBODY, guarded=False)]
        return Shown(
            title=f"Poisoned streams, on {request.benchmark.name}: the guard {request.guard}",
            protocol=_protocol(request),
            grids=[grid for grid in (claims, *grids) if grid.lines],
            notes=[
                "Errors in percent, on benign rows alone: in the first half of the stream an attacker's rows stand "
                "among them, in the second there are none. `held` is the share of all answers that the guard gave to "
                f"the source. `back` counts batches after the attack until the next {_WINDOW} have an error at most "
                f"{_NEAR:g} point above that of the same method among bystanders; a dash where that never comes.",
                *self.reasons(trials, failed),
            ],
        )


def recovery(attacked: np.ndarray, quiet: np.ndarray, *, window: int = _WINDOW, near: float = _NEAR) -> int | None:
    """Batches until the mean error over the next `window` is at most `near` points above that of a quiet run.

    Both are errors by batch in percent from the end of the attack on. None where that never comes.

    >>> recovery(np.array([90.0, 70.0, 30.0, 30.0, 30.0]), np.full(5, 30.0), window=2)
    2
    """
    excess = attacked - quiet
    for start in range(len(excess) - window + 1):
        if excess[start : start + window].mean() <= near:
            return start
    return None


def _attacks() -> list[str]:
    known = list(attacks.classes())
    return [*(name for name in _ORDER if name in known), *(name for name in known if name not in _ORDER)]


def _rivals(request: Request) -> list[str]:
    known = methods.classes()
    chosen = request.methods or tuple(name for name in _METHODS if name.partition(":")[0] in known)
    return [name for name in chosen if name != "source" and name not in request.without]


def _trials(request: Request, method: str, attack: str, *, guarded: bool) -> list[Trial]:
    guard = request.guard if guarded else None
    return [replace(trial, attack=attack, guard=guard) for trial in request.trials(method)]


def _known(request: Request, store: Store, method: str, attack: str, guarded: bool) -> _Halves | None:
    return _halves(store.all(_trials(request, method, attack, guarded=guarded)))


def _halves(outcomes: Sequence[Outcome] | None) -> _Halves | None:
    """Means over seeds."""
    if not outcomes:
        return None
    courses: list[np.ndarray] = []
    for outcome in outcomes:
        counts = np.array(outcome.facts["course"], dtype=np.float64)
        courses.append(100 * counts[:, 0] / counts[:, 1])
    halves = np.array([outcome.errors for outcome in outcomes], dtype=np.float64).mean(0)
    held = [outcome.facts["guard"]["held_share"] for outcome in outcomes if "guard" in outcome.facts]
    attacked, after = halves.tolist()
    course = np.mean(courses, axis=0)
    return _Halves(attacked=attacked, after=after, course=course, held=fmean(held) if held else None)


def _told(found: _Halves, quiet: _Halves | None) -> str | None:
    """How many batches it takes to be as without the attack."""
    if quiet is None:
        return None
    half = len(found.course) // 2
    batches = recovery(found.course[half:], quiet.course[half:])
    return None if batches is None else str(batches)


def _grid(name: str, lines: Sequence[Line]) -> Grid:
    attack: Attack = attacks.build(name)
    head = ["source", "no guard", "guard", "held, %", "source, after", "no guard, after", "guard, after"]
    return Grid(
        key=f"table-poisoning-{name}",
        head=[*head, "back, no guard", "back, guard"],
        lines=lines,
        title=f"{name}: {100 * attack.share:.0f} % of each batch; {attack.knows}",
    )


def _claims(margins: Sequence[tuple[str, float, float]]) -> list[Line]:
    """How many cells are above the source by more than a point, and the worst of them."""
    if not margins:
        return []
    halves = [[(during, where) for where, during, _ in margins], [(after, where) for where, _, after in margins]]
    above = [f"{sum(margin > _MARGIN for margin, _ in half)} of {len(half)}" for half in halves]
    worst = [f"{margin:+.1f} ({where})" for margin, where in map(max, halves)]
    return [
        Line("measured", "under guard, benign error more than 1 point above the source's", above),
        Line("measured", "the worst, points above the source", worst),
    ]


def _protocol(request: Request) -> str:
    stream = request.stream("continual")
    images = stream.size or request.benchmark.images
    return (
        f"{request.model} ({request.weights[:12]}) on {stream.spec}; {images:,} images a corruption, "
        f"{stream.batch_size} benign rows a batch and the attacker's beside them; the attacker's pictures are training "
        f"images under the corruption of the moment; seeds {', '.join(map(str, request.seeds))}; answers from before "
        f"the update, never reset; guard {request.guard}"
    )
