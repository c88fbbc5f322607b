"""Random shifts and mirror images of a batch."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

__all__ = ["flipped", "shifted"]


def shifted(images: Tensor, pixels: int, generator: Generator) -> Tensor:
    """Each image of `[B, C, H, W]` moved by up to `pixels` along both axes; zeros come in.

    >>> shifted(torch.ones(1, 1, 2, 2), 0, torch.Generator()).sum().item()
    4.0
    """
    if not pixels:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4)
    top, left = torch.randint(2 * pixels + 1, (2, count, 1), generator=generator)
    rows = (top + torch.arange(height))[:, :, None]  # [B, H, 1]
    columns = (left + torch.arange(width))[:, None, :]  # [B, 1, W]
    which = torch.arange(count)[:, None, None]
    return padded[which, :, rows, columns].permute(0, 3, 1, 2)


def flipped(images: Tensor, generator: Generator) -> Tensor:
    """Each image of `[B, C, H, W]` mirrored left to right with probability one half."""
    mirror = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirror, images.flip(3), images)
