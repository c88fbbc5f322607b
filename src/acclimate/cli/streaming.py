"""What commands that open a stream ask about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from acclimate.cli.command import Command, option

if TYPE_CHECKING:
    from acclimate.streams import Stream

__all__ = ["Streaming"]


@dataclass(frozen=True, kw_only=True)
class Streaming(Command):
    """Options of `acclimate.streams.open_stream`."""

    size: Annotated[int | None, option("N")] = None
    """Take only so many images of the data set, or of each domain, always the same ones."""
    batch_size: Annotated[int | None, option("N")] = None
    """Images that arrive at once; by default 100 (digits), 200 (CIFAR) or 64 (folders)."""
    severity: Annotated[int, option("1-5")] = 5
    """Strength of the corruptions, 1 to 5, where the setting does not vary it."""
    corruptions: Annotated[tuple[str, ...], option("NAME...")] = ()
    """Corruptions to use instead of the standard fifteen, in this order."""
    order: Annotated[Literal["shuffled_fixed", "stored"], option()] = "shuffled_fixed"
    """One permutation for all corruptions, or the stored order; of streams with one domain at a time."""
    split: Annotated[Literal["test", "train"], option()] = "test"
    """Tune on `train` and the extra corruptions, never on what you report."""
    concentration: Annotated[float | None, option("DELTA")] = None
    """Of the labels in a correlated stream; small is more correlated. 0.1 by default."""
    source_share: Annotated[float | None, option("SHARE")] = None
    """Share of source images in potpourri+; by default the whole source set once."""
    held_out: Annotated[float | None, option("SHARE")] = None
    """Source images that potpourri+ keeps for measuring, at the end, what was forgotten, as a share of those in it."""
    data: Annotated[str | None, option("DIR")] = None
    """Where the data set is."""

    def opened(self, spec: str, seed: int) -> Stream:
        """The stream of a specification."""
        from acclimate.streams import open_stream

        return open_stream(
            spec,
            size=self.size,
            batch_size=self.batch_size,
            seed=seed,
            severity=self.severity,
            order=self.order,
            corruptions=self.corruptions or None,
            split=self.split,
            data=self.data,
            concentration=self.concentration,
            source_share=self.source_share,
            held_out=self.held_out,
        )
