"""What of a model decides how much its devices exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acclimate.core.config import whole

__all__ = ["SHAPES", "ModelShape"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A diffusion transformer whose self-attention is shared among devices.

    Arguments:
        name: as its authors call it.
        layers: L, of self-attention.
        channels: C, heads times the features of each.
        stretches: tokens of the parts of the sequence, each of which is cut among the devices.
        steps: S, evaluations for one image.
        warmup: w, of them exchanged whole.
        copies: sequences in a batch; 2 where guidance computes both halves at once.
        itemsize: bytes of a number.
    """

    name: str
    layers: int
    channels: int
    stretches: tuple[int, ...]
    steps: int
    warmup: int = 1
    copies: int = 1
    itemsize: int = 2

    def __post_init__(self) -> None:
        whole(1, layers=self.layers, channels=self.channels, copies=self.copies, itemsize=self.itemsize)
        whole(1, steps=self.steps)
        whole(0, warmup=self.warmup)

    @property
    def tokens(self) -> int:
        """Of the whole sequence."""
        return sum(self.stretches)

    def rows(self, devices: int) -> int:
        """N, of the matrix `[N, C]` of keys, or of values, that one device has: a stretch that does not divide is
        filled up.

        >>> SHAPES["flux.1-dev"].rows(4)
        1088
        """
        whole(1, devices=devices)
        return self.copies * sum(-(-stretch // devices) for stretch in self.stretches)


SHAPES: Mapping[str, ModelShape] = {
    each.name: each
    for each in (
        ModelShape(name="flux.1-dev", layers=57, channels=3072, stretches=(4096, 256), steps=28),
        ModelShape(name="pixart-alpha", layers=28, channels=1152, stretches=(4096,), steps=20),
        ModelShape(name="sd3-medium", layers=24, channels=1536, stretches=(4096, 333), steps=28, warmup=2),
        ModelShape(name="cogvideox-2b", layers=30, channels=1920, stretches=(17550, 226), steps=50, warmup=2),
        ModelShape(name="dit-xl-2-512", layers=28, channels=1152, stretches=(1024,), steps=50),
        ModelShape(name="digits-dit", layers=4, channels=64, stretches=(64,), steps=28, itemsize=4),
        ModelShape(name="cifar10-dit", layers=6, channels=128, stretches=(64,), steps=28, itemsize=4),
    )
}
"""Images of 1024 x 1024 pixels, 512 x 512 of DiT; a video of 49 frames of 480 x 720; and the small ones trained here.

Of FLUX, SD3 and CogVideoX text is part of the sequence; that of PixArt is attended to apart and never exchanged.
"""
