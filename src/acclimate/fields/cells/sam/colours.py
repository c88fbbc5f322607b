"""The colours of a laboratory: mean and deviation of its pictures, and how one is looked at as if it were another."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Colours", "colours_of"]

_CHUNK = 256


class Colours(NamedTuple):
    """`mean` and `std` of red, green and blue, float32 `[3, 1, 1]`, for pixels in [0, 1]."""

    mean: Tensor
    std: Tensor

    def standard(self, images: Tensor) -> Tensor:
        """Images `[N, 3, H, W]` with mean 0 and deviation 1 where they have these colours."""
        return (images - self.mean) / self.std


def colours_of(images: Tensor) -> Colours:
    """Mean over all pixels, and the mean over images of each one's standard deviation (not that of all pixels).

    Arguments: uint8 `[N, 3, H, W]`. Source: the statistics that BC-SAM's images are normalised with.
    """
    means: list[Tensor] = []
    deviations: list[Tensor] = []
    for part in images.split(_CHUNK):
        pixels = part.to(torch.float32).div_(255).flatten(2)
        means.append(pixels.mean(2))
        deviations.append(pixels.std(2, correction=0))
    mean, std = torch.cat(means).mean(0), torch.cat(deviations).mean(0)
    return Colours(mean.view(3, 1, 1), std.clamp_min(1 / 255).view(3, 1, 1))
