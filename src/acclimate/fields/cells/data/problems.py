"""What is wrong with files, how grave it is, and a folder of which nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["NothingRead", "Problem", "Severity"]


class Severity(IntEnum):
    """How grave a problem is; the gravest come first in lists."""

    FOLDER = 0
    """A whole folder is left out, or may not be what was meant."""
    LEFT_OUT = 1
    """A picture has no part in anything."""
    DOUBTFUL = 2
    """Something of it is not used, or may not be what was meant."""
    REPAIRED = 3
    """It was taken as well as it could be."""
    USUAL = 4
    """It lacks what many lack, such as a mask."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A file or folder that was left out, repaired or is odd.

    Arguments:
        key: what it is called, its path below the folder that was read.
        what: what is wrong with it and what was done about it.
        severity: how grave that is.
    """

    key: str
    what: str
    severity: Severity = Severity.REPAIRED


class NothingRead(ValueError):
    """A folder without a picture that can be read.

    Attributes:
        problems: what is wrong with its files, or with the folder itself.
    """

    def __init__(self, message: str, problems: Sequence[Problem]) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
