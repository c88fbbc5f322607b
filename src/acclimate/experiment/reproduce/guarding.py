"""Methods x streams x source models under guard and without: is any worse than doing nothing, and what gain is kept?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from acclimate.core.guard import build_guard
from acclimate.core.method import methods
from acclimate.experiment.plots import gain_map, share_map
from acclimate.experiment.reproduce.guarded_cells import (
    GuardedCell,
    cell_trials,
    guarded_cell,
    kept_gain,
    source_trials,
)
from acclimate.experiment.reproduce.part import Cell, Drawing, Grid, Line, Part, Shown
from acclimate.experiment.reproduce.pictures import pooled_error
from acclimate.experiment.reproduce.request import GUARDING, MODERN, PAPER, Kind, Request
from acclimate.experiment.reproduce.store import Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["Guarding"]

_KINDS: tuple[Kind, ...] = GUARDING
_FEW = ("bn", "tent", "palm:default", "eata", "sar", "rotta", "lame", "roid", "cotta", "deyo", "auto")
"""On data sets that take their time; all methods there are on the digits."""

_MARGIN = 1.0
"""Points that a cell may end above the source."""

_LEAST = 10_000
_KEPT = 90.0


def _rivals(request: Request) -> list[str]:
    """The methods of the table, without the unadapted model."""
    known = methods.classes()
    if request.benchmark.name == "digits":
        standard = [name for name in (*PAPER, *MODERN) if name.partition(":")[0] in known]
        old = {name.partition(":")[0] for name in standard}
        standard += [name for name in known if name not in old]
    else:
        standard = [name for name in _FEW if name.partition(":")[0] in known]
    chosen = [name for name in standard if name in request.methods or not request.methods]
    chosen += [name for name in request.methods if name not in chosen]
    return [
        name
        for name in chosen
        if name != "source" and name not in request.without and name.partition(":")[0] not in request.without
    ]


Cells = dict[tuple[str, Kind, str], GuardedCell]


class Guarding(Part):
    """Gains with and without the guard, answers held at the source, and whether what is promised holds."""

    key = "table-guard"

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        found: list[Trial] = []
        for network in request.networks:
            found += [trial for kind in _KINDS for trial in source_trials(request, kind, network)]
            for method in _rivals(request):
                pairs = [cell_trials(request, method, kind, network) for kind in _KINDS]
                if any(trial.key in failed for trial in pairs[0][0]):
                    pairs = pairs[:1]
                found += [trial for free, guarded in pairs for trial in (*free, *guarded)]
        return found

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        rivals = _rivals(request)
        cells = _cells(rivals, request, store)
        grids: list[Grid] = [_claims(list(cells.values()), list(request.networks))]
        drawings: list[Drawing] = []
        for network in request.networks:
            known = [name for name in rivals if any((name, kind, network) in cells for kind in _KINDS)]
            if known:
                source = [pooled_error(store.all(source_trials(request, kind, network))) for kind in _KINDS]
                grids += _tables(known, cells, network, source)
                drawings += _maps(known, cells, network)
        grids.append(_listed(cells))
        return Shown(
            title=f"Never worse than doing nothing, on {request.benchmark.name}: the guard {request.guard}",
            protocol=_protocol(request, cells, store),
            grids=[grid for grid in grids if grid.lines],
            drawings=drawings,
            notes=[
                "Gains are points of error below the unadapted model on the same stream; what is below it is marked. "
                "`held` is the share of answers that the guard gave to the source, in percent: one that holds all of "
                "them would never lose and never gain. Intervals (95 %) are of the error under guard minus the "
                "source's, paired by picture: pictures are resampled with all their appearances. The gain kept is that "
                "under guard over that without, summed over the methods that gain without a guard on `continual`, and "
                "as the mean of their ratios.",
                *(f"{name} is not there: {reason}" for name, reason in request.absent.items()),
                *_reasons(rivals, request, failed),
            ],
        )


def _cells(rivals: Sequence[str], request: Request, store: Store) -> Cells:
    found: Cells = {}
    for network, method in product(request.networks, rivals):
        for kind in _KINDS:
            cell = guarded_cell(request, store, method, kind, network)
            if cell is not None:
                found[method, kind, network] = cell
    return found


def _claims(cells: Sequence[GuardedCell], networks: Sequence[str]) -> Grid:
    """What is promised, and what was found: in all, and on each network."""
    groups = {"in all": list(cells)} | {
        network: [cell for cell in cells if cell.network == network] for network in networks
    }
    lines: list[Line] = []

    def line(name: str, wanted: str, told: Callable[[Sequence[GuardedCell]], str]) -> None:
        lines.append(Line("measured", name, [wanted, *(told(group) if group else "-" for group in groups.values())]))

    def count(hits: Callable[[GuardedCell], bool]) -> Callable[[Sequence[GuardedCell]], str]:
        return lambda group: f"{sum(map(hits, group))} of {len(group)}"

    line("under guard, more than 1 point below the source", "0", count(lambda cell: cell.margin.mean > _MARGIN))
    line("the same at the far end of the interval", "0", count(lambda cell: cell.margin.high > _MARGIN))
    line("without a guard, more than 1 point below", "-", count(lambda cell: -cell.free_gain > _MARGIN))
    line("worst cell under guard, points", "-1.0", lambda group: f"{min(cell.gain for cell in group):+.2f}")
    line("worst cell without a guard, points", "-", lambda group: f"{min(cell.free_gain for cell in group):+.2f}")
    line("fewest images in a cell", f"{_LEAST:,}", lambda group: f"{min(cell.margin.images for cell in group):,}")
    line("gain kept on continual, all of it, %", f"{_KEPT:.0f}", lambda group: _kept(group, 0))
    line("gain kept on continual, mean of methods, %", f"{_KEPT:.0f}", lambda group: _kept(group, 1))
    for kind in ("continual", *(["every stream"] if cells else [])):
        line(
            f"answers held at the source on {kind}, %",
            "-",
            lambda group, kind=kind: _held([c for c in group if kind in (c.kind, "every stream")]),
        )
    head = ["wanted", *groups]
    return Grid(key="table-guard-claims", head=head, lines=lines if cells else [], title="What is promised, and found")


def _kept(cells: Sequence[GuardedCell], which: int) -> str:
    kept = kept_gain([cell for cell in cells if cell.kind == "continual"])
    return "-" if kept is None else f"{kept[which]:.1f}"


def _held(cells: Sequence[GuardedCell]) -> str:
    return f"{100 * sum(cell.held for cell in cells) / len(cells):.1f}" if cells else "-"


def _numbers(
    names: Sequence[str], cells: Cells, network: str, number: Callable[[GuardedCell], float]
) -> dict[str, list[float | None]]:
    return {
        name: [number(cell) if (cell := cells.get((name, kind, network))) else None for kind in _KINDS]
        for name in names
    }


def _tables(names: Sequence[str], cells: Cells, network: str, source: Sequence[float | None]) -> list[Grid]:
    grids: list[Grid] = []
    told: dict[str, Callable[[GuardedCell], float]] = {
        "under guard": lambda cell: cell.gain,
        "without a guard": lambda cell: cell.free_gain,
        "held": lambda cell: 100 * cell.held,
    }
    for what, number in told.items():
        gains = what != "held"
        values = _numbers(names, cells, network, number)
        lines = [Line("measured", "source, error", [*source, _average(source)])] if gains else []
        lines += [Line("measured", name, [*values[name], _average(values[name])]) for name in names]
        key = f"table-guard-{what.replace(' ', '-')}-{network}"
        title = f"{network}, gain {what}" if gains else f"{network}, answers held at the source, %"
        grids.append(Grid(key=key, head=[*_KINDS, "mean"], lines=lines, title=title, gains=gains, fine=frozenset()))
    return grids


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _maps(names: Sequence[str], cells: Cells, network: str) -> list[Drawing]:
    def values(number: Callable[[GuardedCell], float]) -> np.ndarray:
        table = _numbers(names, cells, network, number)
        return np.array([[np.nan if v is None else v for v in table[name]] for name in names])

    kinds = list(_KINDS)
    told = f"on {network}, method by stream"
    return [
        Drawing(
            key=f"guard-{network}",
            figure=gain_map(values(lambda cell: cell.gain), names, kinds),
            alternative=f"Points of error below the unadapted model under guard {told}",
        ),
        Drawing(
            key=f"guard-none-{network}",
            figure=gain_map(values(lambda cell: cell.free_gain), names, kinds),
            alternative=f"Points of error below the unadapted model without a guard {told}",
        ),
        Drawing(
            key=f"guard-held-{network}",
            figure=share_map(values(lambda cell: 100 * cell.held), names, kinds),
            alternative=f"Answers that the guard held at the source, in percent, {told}",
        ),
    ]


def _listed(cells: Cells) -> Grid:
    """Every cell with its interval."""
    lines: list[Line] = []
    for (method, kind, network), cell in cells.items():
        margin = cell.margin
        numbers: list[Cell] = [cell.source, cell.unguarded, cell.guarded, margin.mean, margin.low, margin.high]
        numbers += [f"{margin.images:,}", f"{margin.pictures:,}", 100 * cell.held, cell.undone, cell.forgotten]
        lines.append(Line("measured", f"{method} on {kind}, {network}", numbers))
    head = ["source", "no guard", "guard", "difference", "low", "high", "images", "pictures", "held, %", "undone"]
    return Grid(
        key="table-guard-cells",
        head=[*head, "forgotten"],
        lines=lines,
        fine=frozenset({"difference", "low", "high"}),
        title="Every cell: errors, that under guard minus the source's with its interval, what the guard did",
        aside=True,
    )


def _reasons(rivals: Sequence[str], request: Request, failed: Mapping[str, str]) -> list[str]:
    told: dict[str, list[str]] = {}
    for network in request.networks:
        for method in rivals:
            free, _ = cell_trials(request, method, "continual", network)
            found = [failed[trial.key] for trial in free if trial.key in failed]
            if found:
                told.setdefault(f"{network}: {found[0].partition('. ')[0]}", []).append(method)
    return [f"{', '.join(names)} did not run on {reason}." for reason, names in told.items()]


def _protocol(request: Request, cells: Cells, store: Store) -> str:
    guard = build_guard(request.guard)
    settings = "" if guard is None else ", ".join(f"{k} {v}" for k, v in guard.config().items() if k != "name")
    stream = request.stream("continual")
    networks = ", ".join(f"{name} ({digest[:12]})" for name, digest in request.networks.items())
    digests: dict[str, str] = {}
    for _, kind, network in cells:
        outcomes = store.all(source_trials(request, kind, network))
        if outcomes and "stream" in outcomes[0].facts:
            digests[kind] = str(outcomes[0].facts["stream"])[:12]
    told = ", ".join(f"{kind} {digest}" for kind, digest in digests.items())
    return (
        f"{networks}; {request.benchmark.dataset}, {stream.size or request.benchmark.images:,} images under each of 15 "
        f"corruptions at severity 5, batch {stream.batch_size}; never reset, shifts not announced; answers from before "
        f"the update; seeds {', '.join(map(str, request.seeds))}; guard {request.guard} ({settings}); streams {told}"
    )
