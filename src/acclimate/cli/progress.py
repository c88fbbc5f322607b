"""Progress bars, on standard error and only in a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from acclimate.cli.console import progress_console
from acclimate.experiment import Step

__all__ = ["Bars"]


class Bars:
    """One bar for a training and one for a run, whichever happens."""

    def __init__(self) -> None:
        console = progress_console()
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._errors: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def training(self, epoch: int, epochs: int, loss: float, accuracy: float) -> None:
        """For `acclimate.models.train`."""
        note = f"loss {loss:.3f}, accuracy {accuracy:.1%}"
        self._show("training the source model", epoch, epochs, note)

    def step(self, step: Step) -> None:
        """For `acclimate.experiment.run`."""
        if step.error is not None:
            self._errors[step.row.method] = step.error
        note = "  ".join(f"{label} {error:.1f} %" for label, error in list(self._errors.items())[:6])
        severity = f" {step.row.severity}" if step.row.severity else ""
        self._show(f"{step.row.segment}{severity}", step.done, step.total, note)

    def finish(self) -> None:
        """Take the bar away; the next call makes a new one."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def _show(self, description: str, done: int, total: int | None, note: str) -> None:
        if self._task is None:
            self._task = self._progress.add_task(description, total=total, note=note)
        self._progress.update(self._task, description=description, completed=done, total=total, note=note)
