"""`acclimate segment`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from acclimate.cli.command import Command, option

__all__ = ["Segment"]


@dataclass(frozen=True, kw_only=True)
class Segment(Command):
    """Compare methods on road scenes under fog, night, rain and snow, which come back in rounds.

    acclimate segment source bn:alpha tent --normalization alpha

    acclimate segment source tent --rounds 4 --size 40 --output segmentation.json

    The scenes are those of CamVid. The source model is trained first where no weights are named and none are in
    the cache. `acclimate reproduce surgeon` makes the published comparison.
    """

    methods: Annotated[tuple[str, ...], tyro.conf.Positional, option("METHOD...")] = ("source", "bn", "tent")
    """Names, or name:preset."""
    weights: Annotated[str | None, option("FILE.safetensors")] = None
    """Of the source model, from `acclimate train camvid-segmenter`."""
    data: Annotated[str | None, option("DIR")] = None
    """Where the archives of CamVid are, if not in the shared folder."""
    severity: Annotated[int, option("1-5")] = 3
    """Of the weather."""
    rounds: Annotated[int, option("N")] = 10
    """How often the four weathers come."""
    batch_size: Annotated[int, option("N")] = 2
    """Images in a batch."""
    size: Annotated[int | None, option("N")] = None
    """Take only this many of the 233 scenes."""
    seed: Annotated[int, option("N")] = 0
    """Of the weather and the methods."""
    normalization: Annotated[str | None, option("NAME")] = None
    """How batch norms get their statistics, instead of each method's own choice; alpha suits small batches."""
    set: Annotated[tuple[str, ...], option("METHOD.SETTING=VALUE")] = ()
    """Change settings of methods; `acclimate methods NAME` lists them."""
    device: Annotated[str, option("NAME")] = "cpu"
    """Where to compute, such as cpu or cuda."""
    output: Annotated[str | None, option("FILE.json")] = None
    """Where to write all figures and what they depend on."""

    def execute(self) -> None:
        from acclimate.cli.choosing import choose_methods
        from acclimate.cli.console import console
        from acclimate.cli.progress import Bars
        from acclimate.fields.segmentation import camvid, compare, source_segmenter, weather_stream

        chosen = choose_methods(self.methods, self.set, self.normalization)
        stream = weather_stream(
            camvid("test", data=self.data),
            severity=self.severity,
            rounds=self.rounds,
            batch_size=self.batch_size,
            size=self.size,
            seed=self.seed,
        )
        with Bars() as bars:
            model = source_segmenter(self.weights, data=self.data, progress=bars.training)
            bars.finish()
            remaining = list(chosen)

            def follow(label: str, done: int, total: int) -> None:
                bars.show(label, done, total, "")
                if done == total:
                    remaining.remove(label)

            try:
                found = compare(model, stream, chosen, seed=self.seed, device=self.device, progress=follow)
            except ValueError as error:
                raise ValueError(f"{remaining[0]}: {error}" if remaining else str(error)) from error
        out = console()
        out.print(found.table(), soft_wrap=True)
        out.print("100 - mean intersection over union in percent; weather and round above.", style="dim")
        if self.output is not None:
            out.print(f"record  {found.save(Path(self.output))}", soft_wrap=True)
