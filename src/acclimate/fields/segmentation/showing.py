"""The table and the figure of the comparison on CamVid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from acclimate.experiment.plots.peak import Point, against_peak
from acclimate.experiment.reproduce.part import Cell, Drawing, Grid, Line, Shown
from acclimate.experiment.reproduce.published import Row
from acclimate.experiment.reproduce.published_surgeon import SURGEON
from acclimate.fields.segmentation.comparison import Comparison
from acclimate.fields.segmentation.published import IMPORTANCE, ROUNDS, SEGMENTATION
from acclimate.fields.segmentation.weather import CONDITIONS

__all__ = ["show"]

_WEATHER = tuple(f"{condition} {number}" for number in ROUNDS for condition in CONDITIONS)
_NOTES = (
    "held: the most that autograd keeps for backward in one step on the first batch, unique storages without weights "
    "and buffers, the probe of SURGEON included; x stock: as a multiple of what PyTorch keeps in the same step; "
    "allocator: the most that torch's allocator hands out during that step, forward's own temporaries included.",
    "full tuning, checkpointing, surgeon with its ablations and static pruning minimise the same loss, the mean "
    "entropy of all pixels, with the same rate over all weights; they differ in what backward keeps. surgeon without G "
    "sets shares by memory alone, without M by gradients alone; static pruning keeps one share of every layer's input, "
    "such that it holds what surgeon holds.",
    "bn and tent take the statistics of the two images alone; all other rows but source mix the source's in (alpha). "
    "cotta averages over 4 views that move no pixel, where its gate is open; published are 32.",
)


def show(
    rows: Mapping[str, tuple[str, Sequence[Comparison]]], failed: Mapping[str, str], seeds: Sequence[int]
) -> Shown:
    """Of rows by label: their group in the figure, and what they came to under each seed."""
    lines: list[Line] = []
    points: list[Point] = []
    for label, (group, found) in rows.items():
        errors = [comparison.mean_error(label) for comparison in found]
        saved, stock, device = (_mean([each.memory[label][name] for each in found]) for name in _KINDS)
        spread = [stdev(errors) if len(errors) > 1 else None] if len(seeds) > 1 else []
        cells = [_cell(label, found, *column) for column in _columns()]
        size: list[Cell] = [_mb(saved), saved / stock if saved is not None and stock else None, _mb(device)]
        lines.append(Line("measured", label, [*cells, fmean(errors), *spread, *size]))
        if saved is not None and math.isfinite(fmean(errors)):
            points.append(Point(label=label, peak=saved, error=fmean(errors), group=group))
    spread = ["± seeds"] if len(seeds) > 1 else []
    measured = Grid(
        key="camvid",
        head=[*_WEATHER, "mean", *spread, "held, MB", "x stock", "allocator, MB"],
        lines=lines,
        fine=frozenset({"mean", "± seeds", "x stock"}),
    )
    published = [
        Grid(
            key=f"camvid-published-{network.partition('+')[0].lower()}",
            head=[*_WEATHER, "mean", "cache, MiB"],
            lines=[_published(name, row) for name, row in table.items()]
            + [_published(name, (*(None,) * 16, *row)) for name, row in IMPORTANCE.items() if "Deep" in network],
            title=f"Published: {network}, Cityscapes to ACDC",
        )
        for network, table in SEGMENTATION.items()
    ]
    what = "Mean error over ten rounds against what backward keeps at its peak; one point for each row of the table."
    return Shown(
        title="Segmentation: errors (100 - mean IoU, %) in rounds 1, 4, 7 and 10, and memory",
        protocol=_protocol([comparison for _, found in rows.values() for comparison in found], seeds),
        grids=[measured, *published],
        drawings=[Drawing(key="camvid-memory", figure=against_peak(points), alternative=what)] if points else [],
        notes=[
            *_NOTES,
            f"Published: {SURGEON}; other networks and photographs, and a cache that counts inputs of layers alone: "
            "compare the order of methods, not the numbers.",
            *(f"{label} did not run: {reason}" for label, reason in failed.items()),
        ],
    )


_KINDS = ("saved", "stock", "device")


def _columns() -> list[tuple[int, str]]:
    return [(number, condition) for number in ROUNDS for condition in CONDITIONS]


def _cell(label: str, found: Sequence[Comparison], number: int, condition: str) -> float | None:
    """Mean over seeds; None for a round that did not come."""
    cells = [cell for each in found for cell in each.cells if cell.method == label]
    errors = [cell.error for cell in cells if (cell.round, cell.condition) == (number, condition)]
    return fmean(errors) if errors and all(map(math.isfinite, errors)) else None


def _published(name: str, row: Row) -> Line:
    """A published row; caches are published without decimals."""
    *errors, cache = row
    return Line("published", name.replace("_", " "), [*errors, None if cache is None else f"{cache:,.0f}"])


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mb(size: float | None) -> float | None:
    return None if size is None else size / 1e6


def _protocol(found: Sequence[Comparison], seeds: Sequence[int]) -> str:
    if not found:
        return "nothing is finished"
    cells, machine = found[0].cells, found[0].machine
    parts: Any = found[0].protocol["parts"]
    weathers = ", ".join(dict.fromkeys(cell.condition for cell in cells))
    return (
        f"CamVid, test split; {weathers} at severity {cells[0].severity}, {max(cell.round for cell in cells)} rounds; "
        f"{cells[0].images} scenes of each, in stored order, the same in each round; batches of "
        f"{parts[0]['batch_size']}; never reset, shifts not announced; answers from before the update; settings chosen "
        f"on the validation split; seeds {', '.join(map(str, seeds))}; torch {machine.get('torch')}, "
        f"{machine.get('device')}"
    )
