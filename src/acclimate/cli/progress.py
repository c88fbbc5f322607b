"""Progress bars, on standard error and only in a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from acclimate.cli.console import progress_console
from acclimate.experiment import Step

__all__ = ["Bar", "Bars"]


class Bar:
    """One bar at a time, gone when its block ends; where there is no terminal, none.

    Arguments:
        width: of the description before the bar.
    """

    def __init__(self, width: int = 0) -> None:
        console = progress_console()
        self.shown = console.is_terminal
        self._progress = Progress(
            TextColumn(f"{{task.description:<{width}}}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not self.shown,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, description: str, done: int, total: int | None, note: str) -> None:
        """Bring the bar up to date; the first call makes it."""
        if self._task is None:
            self._task = self._progress.add_task(description, total=total, note=note)
        self._progress.update(self._task, description=description, completed=done, total=total, note=note)

    def finish(self) -> None:
        """Take the bar away; the next call makes a new one."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


class Bars(Bar):
    """One bar for a training and one for a run, whichever happens."""

    def __init__(self) -> None:
        super().__init__(width=24)
        self._errors: dict[str, float] = {}

    def training(self, epoch: int, epochs: int, loss: float, accuracy: float) -> None:
        """For `acclimate.models.train`."""
        self.show("training the source model", epoch, epochs, f"loss {loss:.3f}, accuracy {accuracy:.1%}")

    def step(self, step: Step) -> None:
        """For `acclimate.experiment.run`."""
        if step.error is not None:
            self._errors[step.row.method] = step.error
        note = "  ".join(f"{label} {error:.1f} %" for label, error in list(self._errors.items())[:6])
        severity = f" {step.row.severity}" if step.row.severity else ""
        self.show(f"{step.row.segment}{severity}", step.done, step.total, note)
