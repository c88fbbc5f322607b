"""All that is odd about files, the gravest first: for people to read and as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from acclimate.core.storage import atomic_write
from acclimate.fields.cells.data.problems import Problem

__all__ = ["Failed", "Trouble", "by_severity", "of_failed", "told", "write_problems"]

_SHOWN = 5


class Failed(NamedTuple):
    """A folder of which nothing could be read, and why."""

    name: str
    why: str
    problems: tuple[Problem, ...]


class Trouble(NamedTuple):
    """A problem, and the laboratory that it is in."""

    laboratory: str
    problem: Problem


def by_severity(found: Iterable[Trouble]) -> list[Trouble]:
    """The gravest first, else as they come."""
    return sorted(found, key=lambda each: each.problem.severity)


def of_failed(failed: Sequence[Failed]) -> list[Trouble]:
    """The problems of folders that are left out altogether."""
    return [Trouble(each.name, problem) for each in failed for problem in each.problems]


def told(found: Sequence[Trouble], where: str) -> list[str]:
    """A line for each of the five gravest problems of each laboratory, and how many more are `where`."""
    lines: list[str] = []
    for name in dict.fromkeys(each.laboratory for each in found):
        own = by_severity(each for each in found if each.laboratory == name)
        lines += [
            f"{name}: {problem.what}" if problem.key == name else f"{name}: {problem.key} {problem.what}"
            for _, problem in own[:_SHOWN]
        ]
        if len(own) > _SHOWN:
            lines.append(f"{name}: and {len(own) - _SHOWN} more, all of them in {where}")
    return lines


def write_problems(path: Path, found: Sequence[Trouble]) -> None:
    """A CSV with a line for each: laboratory, picture, what is wrong and what was done, and how grave that is."""
    text = io.StringIO()
    rows = [[name, each.key, each.what, each.severity.name.lower()] for name, each in by_severity(found)]
    csv.writer(text, lineterminator="\n").writerows([["laboratory", "picture", "problem", "severity"], *rows])
    atomic_write(path, text.getvalue().encode())
