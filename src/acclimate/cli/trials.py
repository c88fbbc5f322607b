"""Progress of trials: a bar in a terminal, one line for each elsewhere, on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from acclimate.cli.console import progress_console
from acclimate.experiment.reproduce import Trial

__all__ = ["Ticker"]


class Ticker:
    """Tells each finished trial."""

    def __init__(self) -> None:
        console = progress_console()
        self._plain = not console.is_terminal
        self._progress = Progress(
            TextColumn("trials"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=self._plain,
        )
        self._task: TaskID | None = None
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def tick(self, done: int, total: int, trial: Trial, told: float | str) -> None:
        """For `acclimate.experiment.reproduce`."""
        said = f"{trial.label}: {told if isinstance(told, str) else f'{told:.2f} %'}"
        if self._plain:
            minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
            sys.stderr.write(f"{minutes}:{seconds:02d}  {done}/{total}  {said}\n")
            sys.stderr.flush()
            return
        if self._task is None:
            self._task = self._progress.add_task("trials", total=total, note=said)
        self._progress.update(self._task, completed=done, total=total, note=said)
