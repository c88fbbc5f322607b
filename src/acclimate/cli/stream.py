"""`acclimate stream`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from acclimate.cli.command import Command, option

if TYPE_CHECKING:
    from acclimate.streams import Stream

__all__ = ["ShowStream"]


@dataclass(frozen=True, kw_only=True)
class ShowStream(Command):
    """Say what a stream is made of: its domains, how they meet in batches, its protocol and its fingerprint.

    acclimate stream digits:mixed

    acclimate stream cifar10:dynamic --seed 1 --picture dynamic.png

    acclimate stream potpourri+:/data --json

    No model is needed and no image is corrupted.
    """

    spec: Annotated[str, tyro.conf.Positional, option("SPEC")]
    """What arrives, such as digits:mixed, cifar10:gradual or folder:DIR:clean."""
    size: Annotated[int | None, option("N")] = None
    """Take only so many images of each domain, always the same ones."""
    batch_size: Annotated[int | None, option("N")] = None
    """Images that arrive at once; by default 100 (digits), 200 (CIFAR) or 64 (folders)."""
    seed: Annotated[int, option("SEED")] = 0
    """Of stream order and corruptions."""
    severity: Annotated[int, option("1-5")] = 5
    """Strength of the corruptions, where the setting does not vary it."""
    corruptions: Annotated[tuple[str, ...], option("NAME...")] = ()
    """Corruptions to use instead of the standard fifteen, in this order."""
    order: Annotated[Literal["shuffled_fixed", "stored"], option()] = "shuffled_fixed"
    """One permutation for all corruptions, or the stored order; of streams with one domain at a time."""
    split: Annotated[Literal["test", "train"], option()] = "test"
    """Of the data set."""
    concentration: Annotated[float | None, option("DELTA")] = None
    """Of the labels in a correlated stream; small is more correlated. 0.1 by default."""
    source_share: Annotated[float | None, option("SHARE")] = None
    """Share of source images in potpourri+; by default the whole source set once."""
    held_out: Annotated[float | None, option("SHARE")] = None
    """Source images that potpourri+ keeps out of the stream, as a share of those in it."""
    data: Annotated[str | None, option("DIR")] = None
    """Where the data set is."""
    picture: Annotated[str | None, option("FILE")] = None
    """Draw which domains each batch holds, as a PNG or SVG file."""
    json: Annotated[bool, option()] = False
    """Print it as JSON, for other programs."""

    def execute(self) -> None:
        from acclimate.cli.console import console
        from acclimate.cli.tables import show_composition

        stream = self._open()
        composition, fingerprint, protocol = stream.composition(), stream.fingerprint(), stream.protocol()
        if self.picture is not None:
            self._draw(stream, Path(self.picture))
        if self.json:
            whole = {
                "name": stream.name,
                "fingerprint": fingerprint,
                "protocol": protocol,
                "composition": composition.json(),
            }
            sys.stdout.write(json.dumps(whole, indent=2) + "\n")
            return
        out = console()
        show_composition(out, stream.name, composition, whole=True)
        out.print()
        for name, value in protocol.items():
            if name not in ("domains", "classes"):
                out.print(f"{name.replace('_', ' ')}: {_brief(value)}", style="dim", soft_wrap=True)
        out.print(f"\nfingerprint  {fingerprint}", soft_wrap=True)
        if self.picture is not None:
            out.print(f"picture      {self.picture}", soft_wrap=True)

    def _open(self) -> Stream:
        from acclimate.streams import open_stream

        return open_stream(
            self.spec,
            size=self.size,
            batch_size=self.batch_size,
            seed=self.seed,
            severity=self.severity,
            order=self.order,
            corruptions=self.corruptions or None,
            split=self.split,
            data=self.data,
            concentration=self.concentration,
            source_share=self.source_share,
            held_out=self.held_out,
        )

    def _draw(self, stream: Stream, path: Path) -> None:
        from acclimate.experiment.plots import domain_mix

        if path.suffix.lower() not in (".png", ".svg"):
            raise ValueError(f"--picture {path}: expected a name that ends in .png or .svg.")
        domain_mix(stream).savefig(path, dpi=150, bbox_inches="tight")


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
