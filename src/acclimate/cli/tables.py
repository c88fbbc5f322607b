"""Results in a terminal, whatever its width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from acclimate.experiment.results import SOURCE, Results
from acclimate.experiment.tabulate import Column, abbreviation, columns_of
from acclimate.streams import Composition

__all__ = ["show_composition", "show_results"]

_SPACE = 1

T = TypeVar("T")


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


def _blocks(console: Console, parts: Sequence[T], build: Callable[[Sequence[T]], Table]) -> list[Table]:
    """As few tables as fit the width, each with as many of the parts as it holds."""
    tables: list[Table] = []
    left = list(parts)
    while left:
        count = len(left)
        while count > 1 and _width(console, build(left[:count])) > console.width:
            count -= 1
        tables.append(build(left[:count]))
        left = left[count:]
    return tables


def show_results(console: Console, results: Results) -> None:
    """Print the table; where it is too wide, turned; where that is too wide too, in parts."""
    columns = columns_of(results)
    wide = _blocks(console, columns, lambda part: _wide(results, part))
    tall = _blocks(console, results.methods, lambda part: _tall(results, columns, part))
    tables = wide if len(wide) == 1 or (len(tall) > 1 and _lines(wide) < _lines(tall)) else tall
    for number, table in enumerate(tables):
        if number:
            console.print()
        console.print(table)


def show_composition(console: Console, name: str, composition: Composition, *, whole: bool = False) -> None:
    """Print what a stream is made of: a sentence, and where `whole`, or where a composition was published, a table."""
    console.print(f"{name}: {composition}", style="" if whole else "dim", soft_wrap=True)
    if not whole and not composition.published:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("domain", no_wrap=True)
    for head in ("images", "share", *(["published"] if composition.published else [])):
        table.add_column(head, justify="right", no_wrap=True)
    published = composition.published or (-1,) * len(composition.names)
    for domain, count, share, told in zip(
        composition.names, composition.images, composition.shares, published, strict=True
    ):
        cells = [domain, f"{count:,}", f"{share:.1%}"]
        if composition.published:
            cells.append("-" if told < 0 else f"{told:,}")
        table.add_row(*map(Text, cells))
    console.print()
    console.print(table)


def _lines(tables: list[Table]) -> int:
    return sum(table.row_count + 2 for table in tables)
