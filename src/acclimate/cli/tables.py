"""Results in a terminal, whatever its width."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from rich.console import Console
from rich.table import Table
from rich.text import Text

from acclimate.experiment.results import SOURCE, Results
from acclimate.experiment.tabulate import Column, abbreviation, columns_of

__all__ = ["show_results"]

_SPACE = 1


def _cells(results: Results, column: Column) -> list[Text]:
    """A column's cells: the best bold and green, worse than the source red."""
    values = [column.value(results, label) for label in results.methods]
    known = [value for value in values if value is not None and isfinite(value)]
    best = None
    if column.better is not None and len(known) > 1:
        best = min(known) if column.better == "low" else max(known)
    source = column.value(results, SOURCE) if SOURCE in results.methods else None
    cells: list[Text] = []
    for value in values:
        style = ""
        if value is not None and value == best:
            style = "bold green"
        elif column.harm(value, source):
            style = "red"
        cells.append(Text(column.text(value), style=style, no_wrap=True))
    return cells


def _wide(results: Results, columns: Sequence[Column]) -> Table:
    """Methods down, shifts across."""
    table = Table(box=None, padding=(0, _SPACE, 0, 0), header_style="bold", collapse_padding=True)
    table.add_column("error, %", no_wrap=True)
    for column in columns:
        table.add_column(abbreviation(column.name), justify="right", no_wrap=True)
    cells = [_cells(results, column) for column in columns]
    for row, label in enumerate(results.methods):
        table.add_row(Text(label), *(column[row] for column in cells))
    return table


def _tall(results: Results, columns: Sequence[Column], labels: Sequence[str]) -> Table:
    """Shifts down, methods across."""
    table = Table(box=None, padding=(0, 2 * _SPACE, 0, 0), header_style="bold", collapse_padding=True)
    table.add_column("error, %", no_wrap=True)
    places = [results.methods.index(label) for label in labels]
    for label in labels:
        table.add_column(Text(label), justify="right", no_wrap=True)
    before = ""
    for column in columns:
        if before == "shift" and column.kind != "shift":
            table.add_row()
        before = column.kind
        cells = _cells(results, column)
        table.add_row(Text(column.name), *(cells[place] for place in places))
    return table


def _width(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def show_results(console: Console, results: Results) -> None:
    """Print the table in the orientation that fits; methods that fit in neither go into further tables."""
    columns = columns_of(results)
    wide = _wide(results, columns)
    if _width(console, wide) <= console.width:
        console.print(wide)
        return
    labels = list(results.methods)
    while labels:
        count = len(labels)
        while count > 1 and _width(console, _tall(results, columns, labels[:count])) > console.width:
            count -= 1
        console.print(_tall(results, columns, labels[:count]))
        labels = labels[count:]
        if labels:
            console.print()
