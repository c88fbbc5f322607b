"""Pictures that are there more than once, to the last bit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from acclimate.fields.cells.data.classes import plain
from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.data.problems import Problem, Severity
from acclimate.fields.cells.desk.model import digests
from acclimate.fields.cells.desk.problems import Trouble

__all__ = ["copies", "copies_note"]


def copies(laboratories: Sequence[Laboratory]) -> list[Trouble]:
    """Each picture that was there before, in whatever laboratory, and whether it is of another class there."""
    seen: dict[str, tuple[str, str, str]] = {}
    found: list[Trouble] = []
    for laboratory in laboratories:
        names = [*laboratory.classes, ""]  # the last is for UNKNOWN, -1
        for word, key, label in zip(
            digests(laboratory.images), laboratory.keys, laboratory.labels.tolist(), strict=True
        ):
            if word not in seen:
                seen[word] = laboratory.name, key, names[label]
                continue
            home, first, other = seen[word]
            what = f"is the same picture as {first}" + ("" if home == laboratory.name else f" of {home}")
            if label == UNKNOWN or not other or plain(other) == plain(names[label]):
                found.append(Trouble(laboratory.name, Problem(key, what)))
            else:
                what = f"{what}, which counts as {other}"
                found.append(Trouble(laboratory.name, Problem(key, what, Severity.DOUBTFUL)))
    return found


def copies_note(laboratories: Sequence[Laboratory], words: Sequence[str]) -> str:
    """How many pictures are there more than once, for people to know; empty where none is.

    Arguments: `words`, the digest of each picture of all laboratories in turn.
    """
    keys = [f"{each.name}: {key}" for each in laboratories for key in each.keys]
    places: dict[str, list[str]] = defaultdict(list)
    for word, key in zip(words, keys, strict=True):
        places[word].append(key)
    double = [each for each in places.values() if len(each) > 1]
    if not double:
        return ""
    pictures = "1 picture is" if len(double) == 1 else f"{len(double)} pictures are"
    twice = "twice" if all(len(each) == 2 for each in double) else "twice or more"
    named = "; ".join(" and ".join(each[:2]) for each in double[:2]) + ("; ..." if len(double) > 2 else "")
    return f"{pictures} there {twice} ({named}): copies are learned from or held out together, and count once there"
