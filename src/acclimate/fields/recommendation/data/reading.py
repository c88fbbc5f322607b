"""Public layouts of click logs, and how files in them are read: block by block, as rows of texts and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.recommendation.data.blocks import BLOCK, Block, blocks
from acclimate.fields.recommendation.data.cells import Cells, Table, cut, filled_lines

__all__ = ["Format", "Progress", "Rows", "count_rows", "parsers", "parsers_of", "read", "read_files"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many bytes of the files (compressed, where they are) are done and how many there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows before they are encoded.

    Arguments:
        path: the file they are from.
        lines: the line of each, from 1, int64 `[N]`.
        fields: names, `[F]`.
        cells: a text for each row and field, `F` columns of `[N]`; a missing value is the empty text.
        labels: 0 or 1, float32 `[N]`.
    """

    path: Path
    lines: NDArray[np.int64]
    fields: tuple[str, ...]
    cells: tuple[Cells, ...]
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.lines)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Rows:
        """The rows at these places, in this order: int64 `[M]` or bool `[N]`."""
        cells = tuple(column[index] for column in self.cells)
        return replace(self, lines=self.lines[index], cells=cells, labels=self.labels[index])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Format:
    """A layout of text files.

    Arguments:
        name: what it is called.
        columns: of the file, in order.
        separators: the character that follows each column but the last.
        fields: what becomes of the columns: the names of the rows' cells.
        parse: makes rows of a table with these columns.
        label: the column the labels are from.
        header: the first line may hold the columns' names; then they may be in any order.
        thresholds: the published number of times a value of a field must be seen to get an id of its own, where it is
            more than 1.
    """

    name: str
    columns: tuple[str, ...]
    separators: str
    fields: tuple[str, ...]
    parse: Callable[[Table], Rows]
    label: str
    header: bool = False
    thresholds: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


def read(path: str | Path, layout: Format, *, size: int = BLOCK) -> Iterator[Rows]:
    """The rows of a file, a block at a time; blank lines are left out.

    Arguments:
        path: of the file, plain or gzipped.
        layout: how it is laid out.
        size: bytes of text to read at a time.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty or damaged file, or a row that does not fit the layout; the message names file, row (from
            1) and column, what was found and what was expected.
    """
    for block, parse in parsers(path, layout, size=size):
        rows = parse(block)
        if len(rows):
            yield rows


def read_files(
    paths: Sequence[str | Path], layout: Format, *, size: int = BLOCK, progress: Progress | None = None
) -> Iterator[Rows]:
    """The rows of several files, one after the other; see `read`."""
    for block, parse in parsers_of(paths, layout, size=size, progress=progress):
        rows = parse(block)
        if len(rows):
            yield rows


def parsers(path: str | Path, layout: Format, *, size: int = BLOCK) -> Iterator[tuple[Block, Callable[[Block], Rows]]]:
    """The blocks of a file, each with what makes rows of it, so that blocks can be passed over without being parsed."""
    columns: tuple[str, ...] | None = None
    none = True
    for block in blocks(path, size):
        if block.number == 0:
            columns = _header(block, layout)
        skip = int(block.number == 0 and columns is not None)
        none = none and not block.text.split(b"\n", skip)[-1].strip()
        order = columns or layout.columns

        def parse(block: Block, order: tuple[str, ...] = order, skip: int = skip) -> Rows:
            return layout.parse(cut(block, order, layout.separators, skip=skip))

        yield block, parse
    if none:
        raise ValueError(f"{path} has no rows; expected one for each click. Fetch the file again.")


def parsers_of(
    paths: Sequence[str | Path], layout: Format, *, size: int = BLOCK, progress: Progress | None = None
) -> Iterator[tuple[Block, Callable[[Block], Rows]]]:
    """As `parsers`, of several files."""
    if isinstance(paths, (str, Path)) or not paths:
        raise ValueError(f"paths is {paths!r}; expected a sequence of one file or more.")
    files = [Path(path).expanduser() for path in paths]
    sizes = [path.stat().st_size if path.is_file() else 0 for path in files]
    for place, path in enumerate(files):
        for block, parse in parsers(path, layout, size=size):
            yield block, parse
            if progress is not None:
                progress(sum(sizes[:place]) + block.position, sum(sizes))


def count_rows(paths: Sequence[str | Path], layout: Format, *, progress: Progress | None = None) -> int:
    """How many rows the files have, without cutting them into cells."""
    count = 0
    for block, _ in parsers_of(paths, layout, progress=progress):
        filled = filled_lines(np.frombuffer(block.text, dtype=np.uint8))[2]
        count += int(filled.sum()) - (block.number == 0 and _header(block, layout) is not None)
    return count


def _header(block: Block, layout: Format) -> tuple[str, ...] | None:
    """The columns named by the first line, or None where it names none."""
    if not layout.header:
        return None
    first = block.text.partition(b"\n")[0].decode(errors="replace").rstrip("\r")
    names = tuple(name.strip() for name in first.split(layout.separators[0]))
    if not set(names) & set(layout.columns):
        return None
    missing = [name for name in layout.columns if name not in names]
    extra = [name for name in names if name not in layout.columns]
    if missing or extra or len(names) != len(layout.columns):
        what = [f"no column {', '.join(missing)}"] * bool(missing) + [f"the column {', '.join(extra)}"] * bool(extra)
        raise ValueError(
            f"{block.path}, row 1: found {' and '.join(what) or 'a column twice'}; expected "
            f"{', '.join(layout.columns)}. Add what is missing, or remove what is too much."
        )
    return names
