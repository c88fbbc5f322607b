"""`auto` beside fixed choices, on streams of each kind and on one that moves from kind to kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from acclimate.experiment.plots import gain_map
from acclimate.experiment.reproduce.mixing import Rival
from acclimate.experiment.reproduce.part import Drawing, Grid, Line, Part, Shown, average
from acclimate.experiment.reproduce.request import Kind, Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial
from acclimate.streams.moving import MOVING_PARTS

__all__ = ["Choosing"]

_KINDS: tuple[Kind, ...] = ("continual", "mixed", "sorted", "correlated")
_MOVING: Kind = "moving"
_COLUMNS = (*_KINDS, *(f"moving, {part}" for part in MOVING_PARTS))
_SOURCE = Rival(name="source", method="source")
_STATISTICS = tuple(
    Rival(name=name, method="bn", changes=changes)
    for name, changes in {
        "bn": {},
        "bn, alpha": {"normalization": "alpha"},
        "bn, find": {"normalization": "find"},
        "bn, find-selective": {"normalization": "find-selective"},
        "bn, instance_aware": {"normalization": "instance_aware"},
    }.items()
)
_LEARNING = tuple(
    Rival(name=name, method=name) for name in ("tent", "palm:default", "eata", "sar", "roid", "rotta", "lame")
)
_AUTO = Rival(name="auto", method="auto")
_GUARDED = "auto, guarded"

Errors = dict[str, list[float | None]]
"""Errors in percent in the order of the columns, by row."""


def _fixed(request: Request) -> list[Rival]:
    """What never changes its mind, as far as it is asked for; the statistics always."""
    standard = [each for each in _LEARNING if not request.methods or each.method in request.methods]
    own = {each.method for each in (*_LEARNING, _AUTO, _SOURCE)}
    asked = [Rival(name=name, method=name) for name in request.methods if name not in own and name != "bn"]
    return [each for each in (*_STATISTICS, *standard, *asked) if each.method not in request.without]


def _trials(request: Request, rival: Rival, kind: Kind, *, guarded: bool = False) -> list[Trial]:
    guard = request.guard if guarded else None
    return [replace(trial, pictures=True, guard=guard) for trial in rival.trials(request, kind, "")]


class Choosing(Part):
    """Is one setting good enough everywhere? Errors by stream and by part of a moving one, and what was promised."""

    key = "table-auto"

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        kinds = (*_KINDS, _MOVING)
        rivals = (_SOURCE, *_fixed(request), _AUTO)
        free = [trial for kind in kinds for rival in rivals for trial in _trials(request, rival, kind)]
        return free + [trial for kind in kinds for trial in _trials(request, _AUTO, kind, guarded=True)]

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        rivals = (_SOURCE, *_fixed(request), _AUTO)
        errors: Errors = {rival.name: _errors(request, store, rival) for rival in rivals}
        errors[_GUARDED] = _errors(request, store, _AUTO, guarded=True)
        lines = [Line("measured", name, row) for name, row in errors.items()]
        names = [name for name in errors if name != "source"]
        known = any(value is not None for row in errors.values() for value in row)
        everything = [trial for trial in self.wanted(request, store, failed) if trial.key in failed]
        return Shown(
            title=f"One setting for all streams, on {request.benchmark.name}: auto beside fixed choices",
            protocol=_protocol(request, store),
            grids=[
                Grid(key="table-auto-claims", head=["wanted", *_ROWS], lines=_claims(errors, request)),
                Grid(key=self.key, head=_COLUMNS, lines=lines, title="Errors in percent"),
                Grid(key="table-auto-learned", head=_COLUMNS, lines=_learned(request, store), title="What auto did"),
            ],
            drawings=[_map(names, errors)] if known else [],
            notes=[
                "The moving stream shows a quarter of each domain's images in one way, then the next quarter in the "
                "next way: one domain at a time with mixed labels, sorted by label, all domains shuffled, one domain "
                "at a time with labels in chunks. Nobody is told. Its columns are those parts of one run. What "
                "learned earlier carries over, so a part's best is that of methods with the same past.",
                *self.reasons(everything, failed),
            ],
        )


_ROWS = ("auto", _GUARDED)


def _errors(request: Request, store: Store, rival: Rival, *, guarded: bool = False) -> list[float | None]:
    found = [store.all(_trials(request, rival, kind, guarded=guarded)) for kind in _KINDS]
    moving = store.all(_trials(request, rival, _MOVING, guarded=guarded))
    whole = [average(outcomes, lambda outcome: outcome.mean_error()) for outcomes in found]
    parts = [average(moving, lambda outcome, place=place: outcome.errors[place]) for place in range(len(MOVING_PARTS))]
    return [*whole, *parts]


def _claims(errors: Errors, request: Request) -> list[Line]:
    """What is promised of `auto`, and by how much it is kept."""
    fixed = [rival.name for rival in (_SOURCE, *_fixed(request))]
    lines = [
        _margin("continual: points above the best of bn, tent, palm", 1, 0, ("bn", "tent", "palm:default"), errors),
        _margin("mixed: points above the best statistics", 1, 1, [each.name for each in _STATISTICS], errors),
        _margin("sorted: points above the source", 0, 2, ("source",), errors),
        _margin("correlated: points above the source", 0, 3, ("source",), errors),
    ]
    return lines + [
        _margin(f"{_COLUMNS[place]}: points above the best fixed choice", 2, place, fixed, errors)
        for place in range(len(_KINDS), len(_COLUMNS))
    ]


def _margin(name: str, most: int, place: int, rivals: Sequence[str], errors: Errors) -> Line:
    known = {rival: value for rival in rivals if (value := errors.get(rival, _NONE)[place]) is not None}
    best = min(known, key=lambda rival: known[rival], default=None)
    cells: list[str | None] = [f"at most {most}"]
    for row in _ROWS:
        mine = errors[row][place]
        cells.append(None if best is None or mine is None else f"{mine - known[best]:+.2f} ({best} {known[best]:.1f})")
    return Line("measured", name, cells)


_NONE: list[float | None] = [None] * len(_COLUMNS)


def _learned(request: Request, store: Store) -> list[Line]:
    """Of auto's own record, by column: batches it learned from and those whose domains it found to mix, in percent."""
    outcomes = [store.all(_trials(request, _AUTO, kind)) for kind in (*_KINDS, _MOVING)]

    def line(told: str, name: str) -> Line:
        whole = [average(each, lambda outcome: _percent(outcome.values.get(name, ()))) for each in outcomes[:-1]]
        parts = [
            average(outcomes[-1], lambda outcome, place=place: _percent(outcome.values.get(name, ())[place:][:1]))
            for place in range(len(MOVING_PARTS))
        ]
        return Line("measured", told, [*whole, *parts])

    return [line("batches learned from, %", "learning"), line("batches of mixed domains, %", "domains_mix")]


def _percent(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return 100 * fmean(known) if known else None


def _map(names: Sequence[str], errors: Errors) -> Drawing:
    def gain(name: str, place: int) -> float:
        mine, source = errors[name][place], errors["source"][place]
        return np.nan if mine is None or source is None else source - mine

    values = np.array([[gain(name, place) for place in range(len(_COLUMNS))] for name in names])
    return Drawing(
        key="auto-gains",
        figure=gain_map(values, names, [column.replace(", ", ",\n") for column in _COLUMNS]),
        alternative="Points of error below the unadapted model, choice by stream and part of the moving stream",
    )


def _protocol(request: Request, store: Store) -> str:
    stream = request.stream("continual")
    digests: dict[str, str] = {}
    for kind in (*_KINDS, _MOVING):
        outcomes: Sequence[Outcome] = store.all(_trials(request, _SOURCE, kind)) or ()
        if outcomes:
            digests[kind] = str(outcomes[0].facts["stream"])[:12]
    told = ", ".join(f"{kind} {digest}" for kind, digest in digests.items())
    return (
        f"{request.model} ({request.weights[:12]}); {request.benchmark.dataset}, "
        f"{stream.size or request.benchmark.images:,} images under each of 15 corruptions at severity 5, batch "
        f"{stream.batch_size}; never reset, shifts not announced; answers from before the update; seeds "
        f"{', '.join(map(str, request.seeds))}; guard of the last row {request.guard}; streams {told}"
    )
