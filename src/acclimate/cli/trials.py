"""Progress of trials: a bar in a terminal, one line for each elsewhere, on standard error."""

from __future__ import annotations

import sys
import time

from acclimate.cli.progress import Bar
from acclimate.experiment.reproduce import Trial

__all__ = ["Ticker"]


class Ticker(Bar):
    """Tells each finished trial."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic()

    def tick(self, done: int, total: int, trial: Trial, told: float | str) -> None:
        """For `acclimate.experiment.reproduce`."""
        said = f"{trial.label}: {told if isinstance(told, str) else f'{told:.2f} %'}"
        if self.shown:
            self.show("trials", done, total, said)
            return
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        sys.stderr.write(f"{minutes}:{seconds:02d}  {done}/{total}  {said}\n")
        sys.stderr.flush()
