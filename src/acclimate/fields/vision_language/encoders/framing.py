"""From pictures and tensors of any size to the square that an encoder looks at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from acclimate.core.config import whole
from acclimate.streams.image_files import pixels

__all__ = ["Framing"]

_BICUBIC = 3
"""Pillow's number for it, which preprocessor files use."""


@dataclass(frozen=True, kw_only=True)
class Framing:
    """The square of `size` pixels that an encoder looks at.

    Of pictures the shorter side is brought to `shorter` pixels (None: `size`) and the middle is kept; an odd pixel too
    many is cut at the end. With `squashed` both sides are brought to `shorter`, whatever the shape was.

    Arguments: `size` >= 1; `shorter` >= `size`; `resample`, Pillow's number of the filter, 3 for bicubic.

    ValueError for other numbers.
    """

    size: int
    shorter: int | None = None
    squashed: bool = False
    resample: int = _BICUBIC

    def __post_init__(self) -> None:
        whole(1, size=self.size)
        whole(self.size, shorter=self.shorter or self.size)

    def of_size(self, size: int) -> Framing:
        """The same part of pictures at another size."""
        whole(1, size=size)
        return replace(self, size=size, shorter=round((self.shorter or self.size) * size / self.size))

    def preprocess(self, picture: Any) -> Tensor:
        """A `PIL.Image` of any mode and size as `[3, size, size]` in [0, 1], resized as the checkpoint's own processor
        does. ValueError for anything else."""
        if not hasattr(picture, "convert"):
            raise ValueError(
                f"preprocess takes a PIL.Image, found {type(picture).__name__}. Open files with PIL.Image.open; pass "
                "tensors in [0, 1] to the encoder itself, which brings them to its size."
            )
        image = picture.convert("RGB")
        height, width = self._sides(image.height, image.width, self.shorter or self.size)
        image = image.resize((width, height), self.resample)
        top, left = (height - self.size) // 2, (width - self.size) // 2
        return pixels(image.crop((left, top, left + self.size, top + self.size))).float() / 255

    def fit(self, images: Tensor) -> Tensor:
        """Images `[n, 3, H, W]` in [0, 1] as `[n, 3, size, size]`: of this size they come back as they are.

        Others are resized bicubically, smoothed where they shrink, in float32, until their shorter side has `size`
        pixels; of the longer one the middle is kept. Nothing else is cut, since tensors have been cropped as a rule.
        """
        height, width = images.shape[-2:]
        if (height, width) == (self.size, self.size):
            return images
        sides = self._sides(height, width, self.size)
        if (height, width) != sides:
            images = F.interpolate(images.float(), sides, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((side - self.size) // 2 for side in sides)
        return images[..., top : top + self.size, left : left + self.size]

    def _sides(self, height: int, width: int, shorter: int) -> tuple[int, int]:
        if self.squashed:
            return shorter, shorter
        least = min(height, width)
        return int(shorter * height / least), int(shorter * width / least)
