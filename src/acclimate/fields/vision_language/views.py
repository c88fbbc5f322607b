"""Several views of each image: itself, then random crops of it, the same for an image wherever batches begin."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.config import between, whole
from acclimate.core.state import State
from acclimate.parts.augmix import AugMix
from acclimate.parts.crop import crop_and_flip

__all__ = ["Crops"]


@dataclass(frozen=True, kw_only=True)
class Crops:
    """`count` views: the image, then crops of a random share of its area in `area` at an aspect ratio of 3/4 to 4/3,
    enlarged, half of them mirrored, and with `mixed` by AugMix of severity 1 on top.

    What is drawn depends on the seed and on the number of the image in the stream alone.

    Arguments: `count` >= 1; `area`, least and most, in (0, 1]; `mixed`.
    """

    count: int = 1
    area: tuple[float, float] = (0.5, 1.0)
    mixed: bool = False

    def __post_init__(self) -> None:
        whole(1, count=self.count)
        between(1e-6, 1, least_area=self.area[0], most_area=self.area[1])

    def __call__(self, state: State, x: Tensor, first: int) -> Tensor:
        """Views `[N, V, 3, H, W]` of images; what has views already, or is no image, comes back as it is."""
        if self.count == 1 or x.ndim != 4:
            return x
        return torch.stack([self.of(image, state.table.seed, first + place) for place, image in enumerate(x)])

    def of(self, image: Tensor, seed: int, number: int) -> Tensor:
        """Views `[V, 3, H, W]` of one image `[3, H, W]`, by its number in the stream."""
        if self.count == 1:
            return image[None]
        digest = hashlib.sha256(f"{seed} views {number}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        crops = crop_and_flip(image.expand(self.count - 1, *image.shape), "resized", generator, area=self.area)
        if self.mixed:
            crops = AugMix()(crops, generator)
        return torch.cat([image[None], crops])
