"""What is wrong with a row that cannot be cut into its columns."""

from __future__ import annotations

from collections.abc import Sequence

from acclimate.fields.recommendation.data.blocks import Block

__all__ = ["misfit"]

_NAMES = {
    "\t": "tabs",
    ",": "commas",
    ";": "semicolons",
    "|": "bars",
    " ": "spaces",
    ":": "colons",
    "\x01": "0x01 bytes",
}


def misfit(block: Block, columns: Sequence[str], separators: str, skip: int = 0) -> ValueError:
    """The error for the first row of a block that has not the expected columns, to be raised.

    Arguments:
        block: of lines, at least one of which does not fit.
        columns: names, `[C]`.
        separators: the character that follows each column but the last, `[C - 1]`.
        skip: lines left out at the beginning.
    """
    marks = set(separators)
    for number, line in enumerate(block.text.decode(errors="replace").split("\n")[skip:], block.first + skip):
        content = line.removesuffix("\r")
        found = "".join(each for each in content if each in marks)
        if content and found != separators:
            return ValueError(f"{block.path}, row {number}{_what(content, found, columns, separators)}")
    raise AssertionError("every row fits")


def _what(content: str, found: str, columns: Sequence[str], separators: str) -> str:
    usual = " and ".join(_NAMES.get(each, repr(each)) for each in dict.fromkeys(separators))
    expected = f"expected {len(columns)} ({_brief(columns)}), separated by {usual}"
    if not found:
        others = [(content.count(each), name) for each, name in _NAMES.items() if each not in separators]
        most, name = max(others)
        other = f"{most} {name}" if most else "no separator"
        return f", column {columns[0]}: found one column and {other}; {expected}. Choose the format that fits the file."
    count = len(found) + 1
    if count < len(columns):
        return (
            f", column {columns[count]}: found {count} columns, the last of which is {columns[count - 1]}; {expected}. "
            "Complete the row or remove it."
        )
    if count > len(columns):
        return f", column {count}: found {count} columns; {expected}. Remove what follows column {columns[-1]}."
    at = next(place for place, (one, other) in enumerate(zip(found, separators, strict=True)) if one != other)
    return f", column {columns[at]}: found {found[at]!r} after it; {expected}. Mend the row or remove it."


def _brief(columns: Sequence[str]) -> str:
    return ", ".join(columns) if len(columns) < 6 else f"{columns[0]}, {columns[1]}, ..., {columns[-1]}"
