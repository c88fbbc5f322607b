"""What shift a stretch of a stream carries, and in which order the stretches come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from acclimate.streams.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, WEATHER

__all__ = ["CLEAN", "MIXED_SETTINGS", "SETTINGS", "Segment", "plan_segments", "suggest"]

MIXED_SETTINGS = (
    "mixed", "cross-mix", "alternating", "switching", "correlated", "sorted", "dynamic", "random", "potpourri",
    "potpourri+", "moving",
)  # fmt: skip
"""The settings in which domains mix; see `mix`."""

SETTINGS = ("continual", "gradual", "gradual-cotta", "clean", *MIXED_SETTINGS)
"""How a data set becomes a stream; see `plan_segments`."""

_UP_AND_DOWN = (1, 2, 3, 4, 5, 4, 3, 2, 1)
_DOWN = (5, 4, 3, 2, 1)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a stream under one shift: the corruption's name and its severity, 0 where clean.

    It is there for scoring only. A method never sees it: streams do not announce their shifts.
    """

    name: str
    severity: int


CLEAN = Segment("clean", 0)


def suggest(word: str, known: Sequence[str]) -> str:
    """The end of an error message: the close matches of a word, then all that exists."""
    close = get_close_matches(word, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}There are: {', '.join(known)}."


def _names(wanted: Sequence[str] | None) -> tuple[str, ...]:
    if wanted is None:
        return CORRUPTIONS
    if isinstance(wanted, str):
        raise ValueError(f"corruptions is the string {wanted!r}; expected a sequence of names: [{wanted!r}].")
    known = (*CORRUPTIONS, *EXTRA_CORRUPTIONS, *WEATHER)
    for name in wanted:
        if name not in known:
            raise ValueError(f"There is no corruption {name!r}. {suggest(name, known)}")
    if not wanted:
        raise ValueError("corruptions is empty; expected names, or None for the standard fifteen.")
    return tuple(wanted)


def plan_segments(setting: str, *, severity: int = 5, corruptions: Sequence[str] | None = None) -> tuple[Segment, ...]:
    """The segments of a setting, in order.

    * `continual`: each corruption once, at `severity`: 15 segments.
    * `gradual`: for each corruption the severities 1 2 3 4 5 4 3 2 1: 135 segments.
    * `gradual-cotta`: the same, but the first corruption starts at its worst, 5 4 3 2 1: 131 segments.
    * `clean`: one segment, the images as they are.
    * those of `MIXED_SETTINGS`: the shifts of the domains that mix, each corruption once, at `severity`; the stream
      itself may have other segments in time, see `mix`.

    Arguments:
        setting: one of `SETTINGS`.
        severity: 1 to 5, of the setting `continual` and of mixed ones.
        corruptions: names to use instead of the standard fifteen, in this order.

    Raises:
        ValueError: an unknown setting or corruption, or an argument the setting has no use for.

    >>> [s.severity for s in plan_segments("gradual", corruptions=["fog"])]
    [1, 2, 3, 4, 5, 4, 3, 2, 1]
    """
    if setting not in SETTINGS:
        raise ValueError(f"There is no setting {setting!r}. {suggest(setting, SETTINGS)}")
    if isinstance(severity, bool) or severity not in range(1, 6):
        raise ValueError(f"severity is {severity!r}; expected 1, 2, 3, 4 or 5.")
    if setting == "clean":
        if corruptions is not None:
            raise ValueError("The clean setting corrupts nothing; leave corruptions out or take 'continual'.")
        return (CLEAN,)
    names = _names(corruptions)
    if setting == "continual" or setting in MIXED_SETTINGS:
        return tuple(Segment(name, severity) for name in names)
    if severity != 5:
        raise ValueError(
            f"The setting {setting!r} visits every severity, but severity={severity} was given; "
            "leave it out, or take 'continual'."
        )
    first = _DOWN if setting == "gradual-cotta" else _UP_AND_DOWN
    return tuple(
        Segment(name, level)
        for position, name in enumerate(names)
        for level in (first if position == 0 else _UP_AND_DOWN)
    )
