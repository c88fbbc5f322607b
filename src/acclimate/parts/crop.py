"""Random crops and mirror images, one draw for each image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CROPS", "crop_and_flip", "sampled"]

CROPS = ("padded", "resized", "none")
_PADDING = 4
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
_TRIES = 10


@torch.no_grad()
def crop_and_flip(x: Tensor, kind: str, generator: torch.Generator, *, area: tuple[float, float] = _AREA) -> Tensor:
    """A random crop of each image `[N, C, H, W]`, of the size it had, and its mirror image half of the time.

    "padded": shifted by up to 4 pixels, black moving in; "resized": a share of the `area`, 8 to 100 %, at an aspect
    ratio of 3/4 to 4/3, enlarged; "none": the image, not mirrored either.
    """
    if kind == "none" or x.ndim != 4:
        return x
    height, width = x.shape[-2:]
    maps = torch.eye(2, 3).repeat(len(x), 1, 1)
    if kind == "padded":
        maps[:, :, 2] = torch.randint(-_PADDING, _PADDING + 1, (len(x), 2), generator=generator).float()
    else:
        size = _sizes(len(x), height, width, generator, area)
        room = torch.tensor([width, height]) - size
        maps[:, :, :2] = torch.diag_embed(size / torch.tensor([width, height]))
        maps[:, :, 2] = (torch.rand(len(x), 2, generator=generator) * (room + 1)).floor().minimum(room)
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    maps[:, 0, 2] += torch.where(mirrored, maps[:, 0, 0] * width, 0.0)
    maps[:, 0, 0] *= torch.where(mirrored, -1.0, 1.0)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return sampled(wide, maps.to(wide), "zeros" if kind == "padded" else "border").to(x.dtype)


def sampled(x: Tensor, maps: Tensor, outside: str, how: str = "bilinear") -> Tensor:
    """Each image at the places that its map `[2, 3]` takes the pixels from; `outside` and `how` as of `grid_sample`."""
    height, width = x.shape[-2:]
    grid = x.new_empty(len(x), height, width, 2)  # no matrix product: autocast would halve it
    down, across = (torch.arange(size, device=x.device, dtype=x.dtype) + 0.5 for size in (height, width))
    for axis, size in enumerate((width, height)):
        by_column, by_row, shift = (maps[:, axis] * (2 / size)).unsqueeze(1).unbind(2)
        torch.add((by_column * across + (shift - 1)).unsqueeze(1), (by_row * down).unsqueeze(2), out=grid[..., axis])
    return F.grid_sample(x, grid, how, outside, align_corners=False)


def _sizes(
    count: int, height: int, width: int, generator: torch.Generator, within: tuple[float, float] = _AREA
) -> Tensor:
    """Width and height `[count, 2]` of crops that fit: the first of ten draws, or else the whole image."""
    area = torch.rand(count, _TRIES, generator=generator) * (within[1] - within[0]) + within[0]
    low, high = (math.log(bound) for bound in _RATIO)
    ratio = (torch.rand(count, _TRIES, generator=generator) * (high - low) + low).exp()
    area = area * height * width
    sizes = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 2).round()
    fits = ((sizes >= 1) & (sizes <= torch.tensor([width, height]))).all(2)
    first = fits.long().argmax(1)
    found = sizes[torch.arange(count), first]
    return torch.where(fits.any(1, keepdim=True), found, torch.tensor([float(width), float(height)]))
