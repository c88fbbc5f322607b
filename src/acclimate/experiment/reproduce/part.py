"""What a table or figure is made of, before it is written in any format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Literal

from matplotlib.figure import Figure

from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["Cell", "Drawing", "Grid", "Line", "Part", "Shown", "average", "spread"]

Cell = float | str | None


@dataclass(frozen=True)
class Line:
    """One line of a table: measured here, or published elsewhere."""

    kind: Literal["measured", "published"]
    name: str
    cells: Sequence[Cell]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table: `head` names the columns after the first one, `fine` those that are shown with two decimals.

    With `gains` its numbers are differences, shown with their sign, and what is below nought is marked; those of a line
    named "..., error" are errors as elsewhere. One that is `aside` is written as a file and left out of markdown.
    """

    key: str
    head: Sequence[str]
    lines: Sequence[Line]
    fine: frozenset[str] = frozenset({"mean", "mean at 5", "± seeds", "difference", "validation"})
    title: str = ""
    gains: bool = False
    aside: bool = False

    def bad(self, line: Line, column: int) -> bool:
        """Whether a cell is a loss."""
        value = line.cells[column]
        return self.gains and isinstance(value, float) and value < 0

    def text(self, line: Line, column: int) -> str:
        """A cell as shown: published numbers as they were published, a dash for nothing."""
        value = line.cells[column]
        if value is None:
            return "-"
        if isinstance(value, str):
            return value
        if self.gains and not line.name.endswith(", error"):
            return f"{value:+.1f}"
        return f"{value:.2f}" if line.kind == "measured" and self.head[column] in self.fine else f"{value:.1f}"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with its name and what it shows in words."""

    key: str
    figure: Figure
    alternative: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One table or figure of the paper, with all it needs to be read."""

    title: str
    protocol: str
    grids: Sequence[Grid] = ()
    drawings: Sequence[Drawing] = ()
    notes: Sequence[str] = field(default_factory=tuple)


class Part(ABC):
    """A table or figure of the paper: which trials it needs, and what it makes of them."""

    key: str
    """As on the command line and in file names: `table-6`."""

    @abstractmethod
    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        """The trials it needs, as far as they can be known from those that are finished or have failed."""

    @abstractmethod
    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        """What is known so far. `failed` has the reasons of trials that could not be run, by key."""

    def reasons(self, trials: Sequence[Trial], failed: Mapping[str, str]) -> list[str]:
        """Notes on those of the trials that could not be run."""
        told = {trial.method: failed[trial.key] for trial in trials if trial.key in failed}
        return [f"{method} did not run: {reason}" for method, reason in told.items()]


def average(outcomes: Sequence[Outcome] | None, number: Callable[[Outcome], float | None]) -> float | None:
    """Mean over seeds; None where a seed is missing."""
    values = [number(outcome) for outcome in outcomes or ()]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def spread(outcomes: Sequence[Outcome] | None) -> float | None:
    """Sample standard deviation of the mean error over seeds; None for fewer than two."""
    errors = [outcome.mean_error() for outcome in outcomes or ()]
    return stdev(errors) if len(errors) > 1 else None
