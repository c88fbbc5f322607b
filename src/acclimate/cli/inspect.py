"""`acclimate inspect`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from acclimate.cli.command import Command, Interrupted, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acclimate.cli.progress import Bars
    from acclimate.experiment.collapse import CollapsePlan, Level
    from acclimate.streams import Dataset, Stream

__all__ = ["Inspect"]

_SIZE = 500


@dataclass(frozen=True, kw_only=True)
class Inspect(Command):
    """Look inside a model under shift: collapse measures how features stand to the classifier.

    acclimate inspect collapse

    acclimate inspect collapse nctta tent --dataset cifar10 --size 200 --corruptions fog contrast

    In a trained classifier each feature points along the row of its class. Shift turns it away, adaptation may turn it
    back: measured for each answer under severities 0 (clean) to 5, before and after adaptation by each METHOD, which
    sees the corruptions one after another. Written are a table, a figure (PNG), JSON, CSV, markdown and one HTML page
    that needs nothing else. The same command continues where it was interrupted, and with more methods or severities
    it measures only those; with other settings it asks for another folder.
    """

    what: Annotated[Literal["collapse"], tyro.conf.Positional, option()]
    """What to look at."""
    methods: Annotated[tuple[str, ...], tyro.conf.Positional, option("METHOD...")] = ("nctta",)
    """Methods by name or name:preset; the unadapted model always comes along."""
    dataset: Annotated[str, option("DATASET[:DIR]")] = "digits"
    """What is corrupted, such as digits, cifar10 or folder:DIR."""
    size: Annotated[int | None, option("N")] = None
    """Images of the data set for each corruption; by default all of digits, 500 of others."""
    batch_size: Annotated[int | None, option("N")] = None
    """Images that arrive at once; by default 100 (digits), 200 (CIFAR) or 64 (folders)."""
    severities: Annotated[tuple[int, ...], option("0-5...")] = (0, 1, 2, 3, 4, 5)
    """Strengths of the corruptions; 0 is clean."""
    corruptions: Annotated[tuple[str, ...], option("NAME...")] = ()
    """Corruptions to use instead of the standard fifteen."""
    seed: Annotated[int, option("N")] = 0
    """Of order, corruptions and methods."""
    model: Annotated[str | None, option("NAME|module:function|file.py:function")] = None
    """The source model; by default the one that belongs to the data set."""
    weights: Annotated[str | None, option("FILE")] = None
    """Weights to load into it."""
    set: Annotated[tuple[str, ...], option("METHOD.SETTING=VALUE")] = ()
    """Change settings of methods; `acclimate methods NAME` lists them."""
    normalization: Annotated[str | None, option("NAME")] = None
    """How batch norms get their statistics, instead of each method's own choice."""
    data: Annotated[str | None, option("DIR")] = None
    """Where the data set is."""
    source_images: Annotated[int, option("N")] = 2000
    """Training images that the collapse of the source (NC1 to NC4) is measured on, where they are at hand."""
    device: Annotated[str, option("NAME")] = "cpu"
    """Where to compute, such as cpu or cuda."""
    threads: Annotated[int | None, option("N")] = None
    """Threads to compute with; by default as many as pay off, which is measured."""
    out: Annotated[str | None, option("DIR")] = None
    """Where to write; by default runs/collapse-DATASET, once for the same settings."""

    def execute(self) -> None:
        from acclimate.cli.console import console
        from acclimate.cli.progress import Bars
        from acclimate.experiment.collapse import measure_collapse, source_collapse
        from acclimate.experiment.collapse_report import collapse_reading, write_collapse

        folder = self._folder()
        training = self._training()
        with Bars() as bars:
            plan, name = self._plan(bars, training)
            bars.finish()
            try:
                levels = measure_collapse(
                    plan, folder, progress=lambda done, total, note: bars.show("collapse", done, total, note)
                )
            except KeyboardInterrupt as stop:
                raise Interrupted("interrupted; finished severities are kept. The same command continues.") from stop
        source = None
        if training is not None:
            source = source_collapse(plan.model, training, count=self.source_images, seed=self.seed)
        markdown, html = write_collapse(
            folder,
            levels,
            source=source,
            protocol=self._protocol(name, levels),
            about=f"Written by {shlex.join(['acclimate', *sys.argv[1:]])}",
            facts={"environment": plan.environment(), "methods": {k: m.config() for k, m in plan.methods.items()}},
        )
        out = console()
        self._show(levels)
        out.print()
        out.print(collapse_reading(levels))
        out.print(
            f"\ntable   {markdown}\npage    {html}\nfigure  {folder / 'figures' / 'collapse.png'}", soft_wrap=True
        )

    def _folder(self) -> Path:
        named = self.out or f"runs/collapse-{self.dataset.partition(':')[0]}"
        folder = Path(named).expanduser()
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out {self.out} is a file; expected a folder for the table, the figure and the page.")
        return folder

    def _stream(self, severity: int) -> Stream:
        from acclimate.streams import open_stream

        kind = self.dataset.partition(":")[0]
        return open_stream(
            f"{self.dataset}:{'continual' if severity else 'clean'}",
            size=self.size if self.size is not None or kind == "digits" else _SIZE,
            batch_size=self.batch_size,
            seed=self.seed,
            severity=severity or 5,
            corruptions=self.corruptions or None if severity else None,
            data=self.data,
        )

    def _training(self) -> Dataset | None:
        """The training split of the data set; None where it is not at hand."""
        from acclimate.experiment.source import training_split

        try:
            return training_split(self.dataset, self.data)
        except (ValueError, FileNotFoundError):
            return None

    def _plan(self, bars: Bars, training: Dataset | None) -> tuple[CollapsePlan, str]:
        from acclimate.cli.choosing import choose_methods, choose_model
        from acclimate.cli.threads import choose_threads, use_threads
        from acclimate.experiment import SourceImages
        from acclimate.experiment.collapse import CollapsePlan, check_severities

        check_severities(self.severities)
        if self.threads is not None:
            use_threads(self.threads)
        chosen = choose_methods([name for name in self.methods if name != "source"], self.set, self.normalization)
        first = self._stream(max(self.severities, default=5))
        name, model = choose_model(
            self.model,
            self.weights,
            self.dataset.partition(":")[0],
            classes=len(first.classes) or None,
            image_shape=first.image_shape,
            progress=bars.training,
        )
        if self.threads is None and self.device == "cpu":
            choose_threads(model, next(iter(first)).images)
        plan = CollapsePlan(
            stream=self._stream,
            model=model,
            methods=chosen,
            severities=self.severities,
            seed=self.seed,
            source=None if training is None else SourceImages(dataset=training, count=self.source_images),
            device=self.device,
        )
        return plan, name

    def _protocol(self, name: str, levels: Sequence[Level]) -> str:
        stream = self._stream(max(self.severities))
        images = levels[-1].samples // len(stream.segments)
        return (
            f"{self.dataset.partition(':')[0]}, test split; {name}; {len(stream.segments)} corruptions one after "
            f"another under each severity, {images} images of each, in batches of {stream.batch_size}, seed "
            f"{self.seed}; methods start anew under each severity and are never reset within it; severity 0 is one "
            "pass of clean images"
        )

    def _show(self, levels: Sequence[Level]) -> None:
        from rich.table import Table

        from acclimate.cli.console import console
        from acclimate.experiment.collapse_report import level_grid

        grid = level_grid(levels)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("", no_wrap=True)
        for head in grid.head:
            table.add_column(head, justify="right")
        for line in grid.lines:
            table.add_row(line.name, *(grid.text(line, column) for column in range(len(grid.head))))
        console().print(table)
