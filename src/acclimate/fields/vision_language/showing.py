"""The tables of a reproduction of COSMIC: measured, with labels' help, late in the stream, and as published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TypeAlias

from acclimate.experiment.reproduce.part import Cell, Grid, Line, Shown
from acclimate.fields.vision_language.data.catalogue import DATASETS, OUT_OF_DISTRIBUTION
from acclimate.fields.vision_language.evaluation import Outcome
from acclimate.fields.vision_language.lineup import ORACLE, TRANSFER, Row
from acclimate.fields.vision_language.oracle import WeightGrid, transfer
from acclimate.fields.vision_language.published import BACKBONES, COLUMNS, ORACLES, PUBLISHED, SOURCES
from acclimate.fields.vision_language.published import Row as PublishedRow

__all__ = ["Found", "show"]

_Lines: TypeAlias = Sequence[tuple[str, Mapping[str, Sequence[float]]]]

_NOTES = (
    "All answers are given online, after the image has entered the caches and never revised; state begins anew with "
    "each data set. No label has a part in the first table but through the published alpha and beta of each data set.",
    "Methods run on features: each looks at the first of the views that are there, as many as it is published with, "
    "all of one kind (crops of at least half the image where they were made here).",
    "Milliseconds are those of the method for each image, without encoders.",
)


@dataclass
class Found:
    """What a reproduction has come to: trials by data set and row, one for each seed, and what there was not."""

    machine: Mapping[str, str | int]
    outcomes: dict[tuple[str, str], tuple[Outcome | WeightGrid, ...]] = field(
        default_factory=dict[tuple[str, str], tuple[Outcome | WeightGrid, ...]]
    )
    told: dict[str, str] = field(default_factory=dict[str, str])
    failed: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    absent: dict[str, str] = field(default_factory=dict[str, str])

    def measured(self, name: str, key: str, number: Callable[[Outcome], float]) -> list[float]:
        """A number of the trials without labels, by seed."""
        found = self.outcomes.get((name, key), ())
        return [number(outcome) for outcome in found if isinstance(outcome, Outcome)]

    def grids(self, name: str) -> list[WeightGrid]:
        """The oracle's counts, by seed."""
        return [grid for grid in self.outcomes.get((name, ORACLE), ()) if isinstance(grid, WeightGrid)]


def show(group: str, rows: Mapping[str, Row], found: Found, seeds: Sequence[int], weights_from: str) -> Shown:
    """One of the two tables, with what belongs to it."""
    table = _Table(group, found)
    plain = [row for row in rows.values() if not row.labelled]
    key = "ood" if group == OUT_OF_DISTRIBUTION else "cross-domain"
    late = table.grid(f"{key}-late", "Top-1 over the last half of the stream, %", table.rows(plain, lambda o: o.late))
    time = table.grid(f"{key}-milliseconds", "Milliseconds each", table.rows(plain, lambda o: o.milliseconds))
    grids = [
        table.grid(key, "Top-1 accuracy, %", table.rows(plain, lambda o: o.top1), spread=len(seeds) > 1),
        *_labelled(table, key, rows, weights_from, spread=len(seeds) > 1),
        *(_published(table, key, backbone) for backbone in BACKBONES),
        late,
        time,
    ]
    return Shown(
        title="ImageNet and its variants" if group == OUT_OF_DISTRIBUTION else "Ten data sets across domains",
        protocol=_protocol(table, seeds),
        grids=[grid for grid in grids if grid.lines],
        notes=[*_NOTES, *_reasons(table, rows), *_sources(group)],
    )


class _Table:
    """The data sets of one table, in columns, and means over those that are here."""

    def __init__(self, group: str, found: Found) -> None:
        self.group, self.found = group, found
        self.names = [name for name, facts in DATASETS.items() if facts.group == group]
        self.here = [name for name in self.names if name in found.told]
        self.partial = 0 < len(self.here) < len(self.names)
        means = [name for name in COLUMNS[group] if name not in self.names]
        last = [f"mean of {len(self.here)}"] if self.partial else []
        self.titles = [DATASETS[name].title for name in self.names]
        self.head = [*self.titles, *means, *last]

    def rows(self, rows: Sequence[Row], number: Callable[[Outcome], float]) -> _Lines:
        """A number of each row by data set, one for each seed."""
        return [(row.title, {name: self.found.measured(name, row.key, number) for name in self.here}) for row in rows]

    def cells(self, values: Mapping[str, float]) -> list[Cell]:
        """By data set, then the published means as far as all is there, then that over what is here."""
        known = [values.get(name) for name in self.names]
        cells: list[Cell] = [*known, _mean(known)]
        if self.group == OUT_OF_DISTRIBUTION:
            cells.append(_mean(known[1:]))
        if self.partial:
            cells.append(_mean([values.get(name) for name in self.here]))
        return cells

    def grid(self, key: str, title: str, rows: _Lines, *, spread: bool = False) -> Grid:
        """Means over seeds, each row followed by its `spread` if that is asked for."""
        lines: list[Line] = []
        for name, by_dataset in rows:
            count = max(map(len, by_dataset.values()), default=0)
            known = {dataset: numbers for dataset, numbers in by_dataset.items() if len(numbers) == count}
            each = [self.cells({dataset: numbers[seed] for dataset, numbers in known.items()}) for seed in range(count)]
            if not each:
                continue
            columns = [[cell for cell in column if isinstance(cell, float)] for column in zip(*each, strict=True)]
            lines.append(Line("measured", name, [fmean(column) if column else None for column in columns]))
            if spread:
                spreads: list[Cell] = [stdev(column) if len(column) > 1 else None for column in columns]
                lines.append(Line("measured", f"{name}, ± seeds", spreads))
        return Grid(key=key, head=self.head, lines=lines, fine=frozenset(self.head), title=title)


def _labelled(table: _Table, key: str, rows: Mapping[str, Row], weights_from: str, *, spread: bool) -> list[Grid]:
    """What labels would choose, in tables of its own."""
    grids = {name: table.found.grids(name) for name in table.here}
    chosen = table.found.grids(weights_from)
    lines: list[tuple[str, Mapping[str, Sequence[float]]]] = []
    if ORACLE in rows:
        lines.append((rows[ORACLE].title, {name: [g.top1(g.best) for g in each] for name, each in grids.items()}))
    if TRANSFER in rows:
        others = {name: each for name, each in grids.items() if name != weights_from and chosen and each}
        moved = {name: [transfer(a, b) for a, b in zip(chosen, each, strict=True)] for name, each in others.items()}
        lines.append((f"cosmic, weights chosen on labels of {DATASETS[weights_from].title}", moved))
    if not lines:
        return []
    title = "ORACLE and transfer, %: labels have chosen the weights"
    found = [table.grid(f"{key}-oracle", title, lines, spread=spread)]
    if ORACLE in rows and any(grids.values()):
        told: list[Cell] = [_weights(grids.get(name, ())) for name in table.names]
        line = Line("measured", rows[ORACLE].title, told)
        title = "The ORACLE's weights, seed by seed"
        found.append(Grid(key=f"{key}-oracle-weights", head=table.titles, lines=[line], title=title))
    return found


def _weights(grids: Sequence[WeightGrid]) -> str | None:
    return " / ".join(", ".join(f"{weight:g}" for weight in grid.best) for grid in grids) or None


def _published(table: _Table, key: str, backbone: str) -> Grid:
    lines: list[Line] = []
    for name, row in PUBLISHED[table.group][backbone].items():
        cells: list[Cell] = [None if cell is None else str(cell) for cell in row]
        lines.append(Line("published", f"{name} †" if name in ORACLES else name, [*cells, *_partial(table, row)]))
    name = backbone.lower().replace("/", "-")
    return Grid(key=f"{key}-published-{name}", head=table.head, lines=lines, title=f"Published: CLIP's {backbone}, %")


def _partial(table: _Table, row: PublishedRow) -> list[Cell]:
    """A published row's mean over what is here, to compare with."""
    if not table.partial:
        return []
    cells = dict(zip(table.names, row, strict=False))
    known = _mean([None if (cell := cells[name]) is None else cell.value for name in table.here])
    return [None if known is None else f"{known:.2f}"]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _reasons(table: _Table, rows: Mapping[str, Row]) -> list[str]:
    """What is not here, and what did not run."""
    absent = [
        f"Absent: {DATASETS[name].title}: {table.found.absent[name]}" for name in table.names if name not in table.here
    ]
    by_reason: dict[tuple[str, str], list[str]] = {}
    for (name, key), reason in table.found.failed.items():
        if name in table.names:
            by_reason.setdefault((key, reason), []).append(DATASETS[name].title)
    failed = [f"{key} did not run on {', '.join(names)}: {reason}" for (key, reason), names in by_reason.items()]
    held = [
        f"{key} on {DATASETS[name].title}: {sum(counts):g} answers were held at the source."
        for name in table.here
        for key in rows
        if sum(counts := table.found.measured(name, key, lambda o: o.held))
    ]
    return [*absent, *failed, *held]


def _sources(group: str) -> list[str]:
    told = {name for by_method in PUBLISHED[group].values() for name in by_method} | {"both tables"}
    listed = "; ".join(f"{name}: {source}" for name, source in SOURCES.items() if name in told)
    oracles = "†: the released code chooses weights on test labels; compare with an oracle, and not with fixed weights."
    return [f"Published: {listed}. Where a cell is blank no number was found.", oracles]


def _protocol(table: _Table, seeds: Sequence[int]) -> str:
    if not table.here:
        return "none of these data sets is here"
    told = "; ".join(f"{DATASETS[name].title}: {table.found.told[name]}" for name in table.here)
    machine = table.found.machine
    return (
        f"{told}; one pass over a shuffled stream, batches change nothing; seeds of order "
        f"{', '.join(map(str, seeds))}; torch {machine.get('torch')}, {machine.get('device')}"
    )
