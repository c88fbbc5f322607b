"""A block of text cut into cells: rows by line feeds, columns by separators, without a loop over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.recommendation.data.blocks import Block
from acclimate.fields.recommendation.data.misfits import misfit

__all__ = ["Cells", "Table", "cut", "filled_lines"]

Cells = NDArray[np.bytes_]
"""The texts of a column, UTF-8, `[N]`; a missing value is the empty text."""

_WORD = 8
_LONGEST_CELL = 1024
_FEED, _RETURN, _SPACE = 10, 13, 32
_KEPT = np.array([(1 << 64) - (1 << (64 - 8 * count)) for count in range(9)], dtype=np.uint64)
"""Masks that keep the first 0 to 8 bytes of a word."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows and columns of a block.

    Arguments:
        path: of the file.
        columns: names, `[C]`.
        lines: the line of each row, from 1, int64 `[N]`.
        text: the block's bytes, followed by eight zero bytes: uint8.
        starts, ends: where each cell begins and ends, int64 `[N, C]`.
    """

    path: Path
    columns: tuple[str, ...]
    lines: NDArray[np.int64]
    text: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.lines)

    def column(self, name: str) -> Cells:
        """The cells of a column.

        Raises:
            ValueError: a cell of more than 1,024 bytes.
        """
        place = self.columns.index(name)
        start, length = self.starts[:, place], self.ends[:, place] - self.starts[:, place]
        if len(length) and length.max() > _LONGEST_CELL:
            row = int(length.argmax())
            raise self.error(row, name, f"a cell of {length[row]} bytes", f"at most {_LONGEST_CELL}", "Shorten it.")
        width = max(1, -(-int(length.max(initial=1)) // _WORD))
        words = np.ndarray((len(self.text) - _WORD + 1,), ">u8", self.text, strides=(1,))
        cells = np.empty((len(start), width), ">u8")
        for k in range(width):
            inside = np.clip(length - _WORD * k, 0, _WORD)
            cells[:, k] = words[np.minimum(start + _WORD * k, len(words) - 1)] & _KEPT[inside]
        return cells.view(f"S{_WORD * width}")[:, 0]

    def error(self, row: int, column: str, found: str, expected: str, advice: str) -> ValueError:
        """An error at a row (from 0) and a column, to be raised."""
        return ValueError(
            f"{self.path}, row {self.lines[row]}, column {column}: found {found}; expected {expected}. {advice}"
        )


def filled_lines(text: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Start and end of each line, `[L]`, and whether it holds more than a carriage return."""
    ends = np.flatnonzero(text == _FEED)
    starts = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1] + 1])
    length = ends - starts
    return starts, ends, (length > 1) | ((length == 1) & (text[starts] != _RETURN))


def cut(block: Block, columns: Sequence[str], separators: str, *, skip: int = 0) -> Table:
    """Cut a block into cells.

    Blank lines are left out; carriage returns before line feeds and spaces around cells belong to no cell. Quotes have
    no meaning.

    Arguments:
        block: of lines.
        columns: names, `[C]`.
        separators: the character that follows each column but the last, `[C - 1]`.
        skip: lines to leave out at the beginning.

    Raises:
        ValueError: a row of too few or too many columns or of other separators; the message names row and column.
    """
    text = np.frombuffer(block.text + bytes(_WORD), dtype=np.uint8)
    starts, ends, filled = filled_lines(text)
    filled[:skip] = False
    kept = np.flatnonzero(filled)
    marks = _marks(text, separators)
    if len(kept) < len(ends):
        line_of = np.searchsorted(ends, marks)
        marks = marks[filled[line_of]]
    pattern = np.frombuffer((separators + "\n").encode(), dtype=np.uint8)
    if len(marks) != len(kept) * len(columns) or bool((text[marks].reshape(-1, len(columns)) != pattern).any()):
        raise misfit(block, columns, separators, skip)
    cell_ends = marks.reshape(-1, len(columns))
    cell_starts = np.concatenate([starts[kept][:, None], cell_ends[:, :-1] + 1], axis=1)
    cell_ends[:, -1] -= text[cell_ends[:, -1] - 1] == _RETURN
    _strip(text, cell_starts, cell_ends, apart=" " not in separators)
    return Table(block.path, tuple(columns), block.first + kept, text, cell_starts, cell_ends)


def _marks(text: NDArray[np.uint8], separators: str) -> NDArray[np.int64]:
    found = text == _FEED
    for each in sorted(set(separators)):
        found |= text == ord(each)
    return np.flatnonzero(found)


def _strip(text: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], *, apart: bool) -> None:
    """Move starts and ends inwards past spaces, in place."""
    if not apart or not bool((text == _SPACE).any()):
        return
    while bool((spaced := (text[starts] == _SPACE) & (starts < ends)).any()):
        starts += spaced
    while bool((spaced := (text[ends - 1] == _SPACE) & (starts < ends)).any()):
        ends -= spaced
