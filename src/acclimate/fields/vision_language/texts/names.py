"""Names of classes as they are written in prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["different", "plain", "readable"]


def plain(name: str) -> str:
    """A name with spaces for underscores.

    >>> plain("maine_coon")
    'maine coon'
    """
    return " ".join(name.replace("_", " ").split())


def readable(names: Sequence[str], *, repeats: bool = False) -> list[str]:
    """The names as in prompts. ValueError for none, empty ones, a lone string, and, unless `repeats`, one that occurs
    twice.

    >>> readable(["maine_coon", "cat"])
    ['maine coon', 'cat']
    """
    if isinstance(names, str) or not len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"found the class names {names!r}, expected a list of one or more, in the order of labels.")
    found = [plain(name) for name in names]
    if not all(found):
        raise ValueError(f"class {found.index('')} has an empty name, expected the words that describe it.")
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice and not repeats:
        raise ValueError(
            f"found class names more than once: {', '.join(twice[:5])}. Their images could not be told apart: give "
            "each class a name of its own, or pass repeats=True (two of the 1000 names of ImageNet occur twice)."
        )
    return found


def different(names: Sequence[str], place: Path) -> None:
    """ValueError for class names, as in prompts, of which one occurs twice at this place."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"{place} calls two classes {twice[0]!r}, whose images could not be told apart. Give each its own."
        )
