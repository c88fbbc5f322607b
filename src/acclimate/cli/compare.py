"""`acclimate compare`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from acclimate.cli.command import Command, option

if TYPE_CHECKING:
    from rich.table import Table

    from acclimate.experiment import Results

__all__ = ["Compare"]


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Compare methods, of one run or of several on the same stream, with paired intervals.

    acclimate compare runs/A

    acclimate compare runs/A runs/B --against tent

    acclimate compare runs/A --format csv > table.csv

    Runs of different streams or source models are refused: their errors mean different things. The
    interval is of the paired difference, image by image, and leaves out zero where the difference is real.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, option("RUN_DIR...")]
    """Folders of runs."""
    against: Annotated[str | None, option("METHOD")] = None
    """The method that all others are compared with; the source model by default."""
    confidence: Annotated[float, option("SHARE")] = 0.95
    """Of the intervals, between 0 and 1."""
    format: Annotated[Literal["table", "markdown", "csv"], option()] = "table"
    """For the terminal, or for other programs."""

    def execute(self) -> None:
        from acclimate.cli.console import console
        from acclimate.cli.tables import show_results
        from acclimate.experiment import load_results
        from acclimate.experiment.tabulate import to_csv, to_markdown
        from acclimate.experiment.verdict import verdict

        if not self.runs:
            raise ValueError("compare needs the folder of a run, such as: acclimate compare runs/NAME.")
        results = load_results(*self.runs)
        if self.format != "table":
            sys.stdout.write(to_csv(results) if self.format == "csv" else to_markdown(results))
            return
        against = self.against or results.methods[0]
        results.tracks(against)
        out = console()
        for record in results.records:
            if not record.complete:
                out.print(f"{record.path.parent} is unfinished: only whole passes of the stream count.", style="dim")
        show_results(out, results)
        if len(results.methods) > 1:
            out.print()
            out.print(self._differences(results, against))
            out.print("Points of mean error, below zero is better; paired image by image.", style="dim")
        out.print()
        out.print(verdict(results))

    def _differences(self, results: Results, against: str) -> Table:
        from rich.table import Table

        from acclimate.experiment import paired_difference

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column(f"against {against}", no_wrap=True)
        table.add_column("points", justify="right", no_wrap=True)
        table.add_column(f"{self.confidence:.0%} interval", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for label in results.methods:
            if label == against:
                continue
            gap = paired_difference(results, label, against, confidence=self.confidence)
            word = "better" if gap.real and gap.mean < 0 else "worse" if gap.real else "unsure"
            interval = f"{gap.low:+.2f} to {gap.high:+.2f}"
            table.add_row(label, f"{gap.mean:+.2f}", interval, word)
        return table
