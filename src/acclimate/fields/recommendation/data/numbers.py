"""Columns of numbers and labels, read without a loop over cells."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.recommendation.data.cells import Cells, Table

__all__ = ["as_text", "decimals", "integers", "labels"]

_MOST_DIGITS = 18
_ZERO, _MINUS = ord("0"), ord("-")


def labels(table: Table, column: str, meaning: Mapping[str, int]) -> NDArray[np.float32]:
    """Labels as 0 and 1: float32 `[N]`.

    Arguments:
        table: with the column.
        column: its name.
        meaning: 0 or 1 for each text that may be there.

    Raises:
        ValueError: another text; the message names row and column.
    """
    cells = table.column(column)
    found = np.full(len(cells), -1, dtype=np.float32)
    for text, label in meaning.items():
        found[cells == text.encode()] = label
    if bool((found < 0).any()):
        row = int((found < 0).argmax())
        known = " or ".join(repr(text) for text in meaning)
        raise table.error(row, column, _shown(cells[row]), known, "Mend the label or remove the row.")
    return found


def integers(table: Table, column: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Whole numbers, int64 `[N]`, and where they are missing, bool `[N]`; there the number is 0.

    An empty cell and `nan` in any case are missing. `3.0` counts as 3.

    Raises:
        ValueError: text, a fraction, an infinite number or one of more than 18 digits; with row and column.
    """
    cells = table.column(column)
    characters = cells.view(np.uint8).reshape(len(cells), cells.dtype.itemsize)
    digits = characters - np.uint8(_ZERO)
    digit = digits <= 9
    negative = characters[:, 0] == _MINUS
    count = digit.sum(1)
    plain = (count + negative == (characters != 0).sum(1)) & (count > 0) & (count <= _MOST_DIGITS)
    values = np.zeros(len(cells), dtype=np.int64)
    for place in range(digits.shape[1]):
        values = np.where(digit[:, place] & plain, values * 10 + digits[:, place], values)
    values = np.where(negative, -values, values)
    missing = cells == b""
    for text in np.unique(cells[~plain & ~missing]):
        same = cells == text
        number = _number(text)
        if number is None or not (number.is_integer() or np.isnan(number)) or abs(number) >= 10**_MOST_DIGITS:
            row = int(same.argmax())
            raise table.error(
                row,
                column,
                _shown(text),
                f"a whole number of at most {_MOST_DIGITS} digits, or nothing",
                "Mend the row.",
            )
        missing |= same & np.isnan(number)
        values[same] = 0 if np.isnan(number) else int(number)
    return values, missing


def decimals(table: Table, column: str) -> NDArray[np.float64]:
    """Finite numbers, float64 `[N]`; NaN where the cell is empty or `nan`.

    Raises:
        ValueError: text or an infinite number; the message names row and column.
    """
    cells = table.column(column)
    texts, place = np.unique(cells, return_inverse=True)
    numbers = [float("nan") if text == b"" else _number(text) for text in texts]
    for text, number in zip(texts, numbers, strict=True):
        if number is None or np.isinf(number):
            row = int((cells == text).argmax())
            raise table.error(row, column, _shown(text), "a finite number, or nothing", "Mend the row.")
    return np.array(numbers, dtype=np.float64)[place]


def as_text(values: NDArray[np.int64], missing: NDArray[np.bool_] | None = None) -> Cells:
    """Whole numbers as cells; missing ones are empty.

    >>> as_text(np.array([-1, 21])).tolist()
    [b'-1', b'21']
    """
    numbers, place = np.unique(values, return_inverse=True)
    texts = numbers.astype("S24")
    width = 8 * max(1, -(-int(np.strings.str_len(texts).max(initial=0)) // 8))
    cells = np.asarray(texts.astype(f"S{width}")[place])
    if missing is not None:
        cells[missing] = b""
    return cells


def _number(text: bytes) -> float | None:
    try:
        return None if b"_" in text else float(text)  # Python itself takes 1_000 for a number
    except ValueError:
        return None


def _shown(text: bytes) -> str:
    return repr(text.decode(errors="replace")) if text else "nothing"
