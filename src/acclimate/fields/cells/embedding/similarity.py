"""Structural similarity of images."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["structural_similarity"]

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Mean SSIM of images `[N, C, H, W]` in [0, 1], one number, 1 for equal ones.

    `SSIM = (2 m m' + C1) (2 c + C2) / ((m^2 + m'^2 + C1) (v + v' + C2))` with means m, variances v and the covariance c
    under a Gaussian window of 11 pixels, deviation 1.5, zeros outside; `C1 = 0.01^2`, `C2 = 0.03^2`; mean over images,
    channels and pixels.

    Source: Wang et al., IEEE TIP 2004. Cost: two products of each of five maps with a square matrix.

    >>> x = torch.rand(1, 3, 16, 16)
    >>> float(structural_similarity(x, x).round(decimals=4))
    1.0
    """
    if first.shape != second.shape or first.ndim != 4:
        raise ValueError(f"found {list(first.shape)} and {list(second.shape)}, expected two of the same [N, C, H, W].")
    maps = torch.cat([first, second, first * first, second * second, first * second])
    mean, other, square, other_square, product = _blurred(maps).chunk(5)
    variance = square - mean * mean
    other_variance = other_square - other * other
    covariance = product - mean * other
    above = (2 * mean * other + _C1) * (2 * covariance + _C2)
    below = (mean * mean + other * other + _C1) * (variance + other_variance + _C2)
    return (above / below).mean()


def _blurred(maps: Tensor) -> Tensor:
    # Products with banded matrices: a convolution of each map by itself takes the CPU several times as long.
    down, across = (_filter(side, maps) for side in maps.shape[-2:])
    return down @ maps @ across


def _filter(side: int, like: Tensor) -> Tensor:
    """What a window makes of a line of pixels, `[side, side]`; symmetric."""
    places = torch.arange(side, dtype=like.dtype, device=like.device)
    steps = places[:, None] - places
    taps = torch.arange(_WINDOW, dtype=like.dtype, device=like.device) - _WINDOW // 2
    whole = (-(taps**2) / (2 * _SIGMA**2)).exp().sum()
    return (-(steps**2) / (2 * _SIGMA**2)).exp() / whole * (steps.abs() <= _WINDOW // 2)
