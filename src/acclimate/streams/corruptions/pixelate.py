"""Pixelate: shrink by averaging boxes, enlarge by repetition."""

from functools import lru_cache

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.separable import separable


def pixelate(images: Tensor, _: Draws, factor: float) -> Tensor:
    """Shrink to floor(factor * size) pixels and enlarge back, both with a box filter, on 8-bit pixels.

    The width is resized before the height, and values are rounded to 8 bits after each, as image libraries do.

    Arguments:
        factor: in (0, 1).

    Example:
        >>> corrupt(images, "pixelate", severity=3)
    """
    height, width = images.shape[-2:]
    levels = (images * 255).add_(0.5).floor_()
    small = _resize(levels, int(height * factor), int(width * factor))
    return _resize(small, height, width).div_(255)


def _resize(levels: Tensor, height: int, width: int) -> Tensor:
    """Whole numbers 0..255 [..., H, W] to whole numbers [..., height, width]."""
    device = levels.device
    old_height, old_width = levels.shape[-2:]
    keep_rows = torch.eye(old_height, dtype=torch.float64, device=device)
    keep_columns = torch.eye(width, dtype=torch.float64, device=device)
    levels = _filtered(levels, keep_rows, box_matrix(old_width, width, device))
    return _filtered(levels, box_matrix(old_height, height, device), keep_columns)


def _filtered(levels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    # Halved eight times, not divided by 255: so that means of whole numbers that end in one half stay exact.
    return separable(levels * 2.0**-8, rows, columns).mul_(2.0**8).add_(0.5).floor_()


@lru_cache(maxsize=64)
def box_matrix(old: int, new: int, device: torch.device | None = None) -> Tensor:
    r"""Resize a line by a box filter: float64 [new, old], rows summing to 1.

    Output i is the mean of the samples whose centres lie within half a box of :math:`(i + \tfrac12)\,\text{old} /
    \text{new}`, the box as wide as one output sample, at least as wide as one input sample.
    """
    scale = old / new
    width = max(scale, 1.0)
    centre = (torch.arange(new, dtype=torch.float64, device="cpu")[:, None] + 0.5) * scale
    distance = (torch.arange(old, dtype=torch.float64, device="cpu") + 0.5 - centre) / width
    inside = ((distance > -0.5) & (distance <= 0.5)).double()
    return (inside / inside.sum(1, keepdim=True)).to(device)
