"""Random shifts and mirror images of a batch; random windows of scenes with their label maps."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

__all__ = ["brightened", "flipped", "shifted", "windows"]


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


def windows(
    images: Tensor, labels: Tensor, size: tuple[int, int], scales: tuple[float, float], generator: Generator
) -> tuple[Tensor, Tensor]:
    """A random window of each scene, mirrored with probability one half: images bilinear, labels of the nearest pixel.

    The scale is drawn evenly on a logarithmic axis: at 2 the window shows half as many pixels each way, twice
    as large. What lies beyond the border is black and has the label -1.

    Arguments:
        images: float `[B, 3, H, W]`.
        labels: int64 `[B, H, W]`, at least -1.
        size: height and width of the windows in pixels.
        scales: smallest and largest.
        generator: of the CPU.

    >>> images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    >>> [list(each.shape) for each in windows(images, labels, (4, 6), (1.0, 1.0), torch.Generator())]
    [[2, 3, 4, 6], [2, 4, 6]]
    """
    count = len(images)
    low, high = (math.log(scale) for scale in scales)
    scale = torch.rand(count, generator=generator).mul_(high - low).add_(low).exp_()
    lines: list[Tensor] = []
    for side, pixels in zip(images.shape[-2:], size, strict=True):
        shown = pixels / scale
        start = torch.rand(count, generator=generator) * (side - shown)
        place = start[:, None] + (torch.arange(pixels) + 0.5) / scale[:, None]
        lines.append(place.mul_(2 / side).sub_(1))  # from -1 to 1 across the image
    rows, columns = lines
    mirror = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirror, columns.flip(1), columns)
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), dim=3)  # [B, h, w, 2]
    cut = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    raised = (labels + 1).to(torch.float32)[:, None]  # what comes in from outside is 0
    named = F.grid_sample(raised, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return cut, named[:, 0].to(torch.int64) - 1


def brightened(images: Tensor, most: float, generator: Generator) -> Tensor:
    """Each image `[B, C, H, W]` in [0, 1] times a factor from `1 - most` to `1 + most`, cut at 1."""
    factor = torch.rand(len(images), 1, 1, 1, generator=generator).mul_(2 * most).add_(1 - most)
    return (images * factor).clamp_(max=1.0)
