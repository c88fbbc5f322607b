"""Images with their objects destroyed: what a model still answers to them it does not tell from shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["DESTRUCTIONS", "occluded", "shuffled_patches", "shuffled_pixels"]

_GRID = 4


@torch.no_grad()
def shuffled_patches(x: Tensor, generator: torch.Generator) -> Tensor:
    """Cut each image `[N, C, H, W]` into 4 x 4 patches and permute them, for each image in another way.

    Sides that four does not divide are scaled down for it, and back.
    """
    rows, channels, height, width = x.shape
    down, across = height // _GRID, width // _GRID
    if not down or not across:
        raise ValueError(f"views of 4 x 4 patches need images of at least 4 x 4 pixels, found {height} x {width}.")
    even = _scaled(x, down * _GRID, across * _GRID)
    patches = even.reshape(rows, channels, _GRID, down, _GRID, across).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.rand(rows, _GRID**2, generator=generator).argsort(1).to(x.device)
    patches = patches.gather(1, order.view(rows, -1, 1, 1, 1).expand_as(patches))
    image = patches.unflatten(1, (_GRID, _GRID)).permute(0, 3, 1, 4, 2, 5).reshape(even.shape)
    return _scaled(image, height, width)


@torch.no_grad()
def shuffled_pixels(x: Tensor, generator: torch.Generator) -> Tensor:
    """Permute the pixels of each image, all images in the same way."""
    order = torch.randperm(x.shape[2] * x.shape[3], generator=generator).to(x.device)
    return x.flatten(2)[:, :, order].view(x.shape)


@torch.no_grad()
def occluded(x: Tensor, generator: torch.Generator) -> Tensor:
    """Fill the middle half of each side with the mean colour of the image."""
    height, width = x.shape[2:]
    covered = x.clone()
    middle = covered[:, :, height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2]
    middle.copy_(x.mean((2, 3), keepdim=True).expand_as(middle))
    return covered


def _scaled(x: Tensor, height: int, width: int) -> Tensor:
    if x.shape[2:] == (height, width):
        return x
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return F.interpolate(wide, (height, width), mode="bilinear", antialias=True).to(x.dtype)


DESTRUCTIONS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "patch": shuffled_patches,
    "pixel": shuffled_pixels,
    "occlusion": occluded,
}
