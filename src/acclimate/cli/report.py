"""`acclimate report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from acclimate.cli.command import Command, option

__all__ = ["Report"]


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Write the report of a run again, or one report of several runs on the same stream.

    acclimate report runs/NAME

    acclimate report runs/A runs/B --output both.html

    The report is one HTML file that needs nothing else: verdict, table, figures, worst case, protocol,
    environment, and the command that repeats the run.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, option("RUN_DIR...")]
    """Folders of runs; the first one gives the protocol."""
    output: Annotated[str | None, option("FILE")] = None
    """Where to write it; report.html in the folder of the run by default."""

    def execute(self) -> None:
        from acclimate.cli.console import console
        from acclimate.experiment import load_results
        from acclimate.experiment.report import write_report

        if not self.runs:
            raise ValueError("report needs the folder of a run, such as: acclimate report runs/NAME.")
        if len(self.runs) > 1 and self.output is None:
            raise ValueError("a report of several runs needs a place: add --output FILE.html.")
        results = load_results(*self.runs)
        place = Path(self.output) if self.output else results.records[0].path.parent / "report.html"
        console().print(f"report  {write_report(results, place)}", soft_wrap=True)
