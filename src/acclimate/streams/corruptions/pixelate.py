"""Pixelate: shrink by averaging boxes, enlarge by repetition."""

from functools import lru_cache

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws


def pixelate(images: Tensor, _: Draws, factor: float) -> Tensor:
    """Shrink to floor(factor * size) pixels and enlarge back, both with a box filter, on 8-bit pixels.

    The width is resized before the height, and values are rounded to 8 bits after each, as image libraries do.

    Arguments:
        factor: in (0, 1).

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "pixelate", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    height, width = images.shape[-2:]
    levels = (images * 255).add_(0.5).floor_().double()
    narrow = _shrink(levels, int(width * factor))
    small = _shrink(narrow.transpose(2, 3), int(height * factor)).transpose(2, 3)
    rows, columns = (_nearest(size, int(size * factor), images.device) for size in (height, width))
    return small.div(255).float().index_select(2, rows).index_select(3, columns)


def _shrink(levels: Tensor, size: int) -> Tensor:
    """Average the last axis of whole float64 levels into `size` boxes, and round."""
    return (levels @ box_matrix(levels.shape[-1], size, levels.device).T).add_(0.5).floor_()


def _nearest(size: int, small: int, device: torch.device) -> Tensor:
    """Which of `small` pixels covers each of `size`: all that a box filter does when it enlarges."""
    return ((torch.arange(size, device=device) * 2 + 1) * small).div_(2 * size, rounding_mode="floor")


@lru_cache(maxsize=64)
def box_matrix(old: int, new: int, device: torch.device | None = None) -> Tensor:
    r"""Shrink a line by a box filter: float64 [new, old], rows summing to 1, on a grid of 2^-26.

    Output i is the mean of the samples whose centres lie within half an output sample of
    :math:`(i + \tfrac12)\,\text{old} / \text{new}`, old >= new. The grid makes products with whole levels exact,
    in any order of summation.
    """
    scale = old / new
    centre = (torch.arange(new, dtype=torch.float64, device="cpu")[:, None] + 0.5) * scale
    distance = (torch.arange(old, dtype=torch.float64, device="cpu") + 0.5 - centre) / scale
    inside = ((distance > -0.5) & (distance <= 0.5)).double()
    return (inside / inside.sum(1, keepdim=True)).mul_(2.0**26).round_().mul_(2.0**-26).to(device)
