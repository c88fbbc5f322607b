"""`acclimate stream`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from acclimate.cli.command import option
from acclimate.cli.streaming import Streaming

if TYPE_CHECKING:
    from acclimate.streams import Stream

__all__ = ["ShowStream"]


@dataclass(frozen=True, kw_only=True)
class ShowStream(Streaming):
    """Say what a stream is made of: its domains, how they meet in batches, its protocol and its fingerprint.

    acclimate stream digits:mixed

    acclimate stream cifar10:dynamic --seed 1 --picture dynamic.png

    acclimate stream potpourri+:/data --json

    No model is needed and no image is corrupted.
    """

    spec: Annotated[str, tyro.conf.Positional, option("SPEC")]
    """What arrives, such as digits:mixed, cifar10:gradual or folder:DIR:clean."""
    seed: Annotated[int, option("SEED")] = 0
    """Of stream order and corruptions."""
    picture: Annotated[str | None, option("FILE")] = None
    """Draw which domains each batch holds, as a PNG or SVG file."""
    json: Annotated[bool, option()] = False
    """Print it as JSON, for other programs."""

    def execute(self) -> None:
        from acclimate.cli.console import console
        from acclimate.cli.tables import show_composition

        stream = self.opened(self.spec, self.seed)
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

    def _draw(self, stream: Stream, path: Path) -> None:
        from acclimate.experiment.plots import domain_mix

        if path.suffix.lower() not in (".png", ".svg"):
            raise ValueError(f"--picture {path}: expected a name that ends in .png or .svg.")
        domain_mix(stream).savefig(path, dpi=150, bbox_inches="tight")


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
