"""Where commands write."""

from __future__ import annotations

import os
import sys

from rich.console import Console

__all__ = ["console", "progress_console"]

_PIPED_WIDTH = 120


class _Output(Console):
    """One that leaves a reader who has gone to `launch`, instead of ending the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Standard output, for results. A pipe is taken to be 120 columns wide, unless $COLUMNS says otherwise."""
    made = _Output(highlight=False, soft_wrap=False)
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS"):
        made.width = _PIPED_WIDTH
    return made


def progress_console() -> Console:
    """Standard error, for progress bars."""
    return Console(stderr=True, highlight=False)
