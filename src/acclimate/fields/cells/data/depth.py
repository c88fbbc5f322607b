"""Pictures with more than eight bits a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEEP", "eight_bits", "upper_bits"]

DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
"""The modes of Pillow with one channel of more than eight bits."""

_BITS = {65535: "16 bits", 4095: "12 bits in 16"}

_BRIGHT = 0.995
"""Share of pixels up to the one that tells the range: a few hot pixels do not darken a picture."""

_FRACTION = 1.5
"""Up to here floating point counts as fractions: resampling overshoots 1, but not by half."""


def eight_bits(values: NDArray[Any]) -> tuple[NDArray[np.uint8], str]:
    """Values of more than eight bits as uint8, and what was done in words.

    The range is told by the value that 99.5 % of pixels reach at most. Values are scaled by 65535 where it is above
    4095, by 4095 where it is above 255, and else taken as they are; floating point of which it is at most 1.5 is scaled
    by 1. What is above the range then, such as a hot pixel, becomes white.

    Arguments:
        values: `[H, W]`, whole numbers or floating point.

    Raises:
        ValueError: values that are not finite, below 0 or above 65535.

    >>> eight_bits(np.array([[0, 4095]]))
    (array([[  0, 255]], dtype=uint8), 'has 12 bits in 16, scaled by 4095')
    """
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite, expected 0 to 65535")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"holds values from {low:g} to {high:g}, expected 0 to 65535")
    scale, told = _range(values)
    above = int((values > scale).sum())
    if above:
        told += f", {above} pixel{'' if above == 1 else 's'} above that made white"
    scaled = np.rint(values.astype(np.float64) * (255 / scale))
    return scaled.clip(0, 255).astype(np.uint8), told


def _range(values: NDArray[Any]) -> tuple[int, str]:
    """What is white, and how to say so."""
    bright = _bright(values)
    if values.dtype.kind == "f" and bright <= _FRACTION:
        return 1, "holds fractions, scaled by 1"
    if bright <= 255:
        return 255, "has more than 8 bits a pixel but uses at most 8, taken as 8 bits"
    scale = 65535 if bright > 4095 else 4095
    return scale, f"has {_BITS[scale]}, scaled by {scale}"


def _bright(values: NDArray[Any]) -> float:
    return float(np.quantile(values, _BRIGHT, method="higher"))


def upper_bits(pixels: NDArray[np.uint8]) -> str:
    """What is to be said of colours of 16 bits, whose upper eight were decoded.

    Raises:
        ValueError: next to nothing is in the upper eight, a few hot pixels apart, so only twelve bits or fewer were
            used.
    """
    if _bright(pixels) <= 4095 >> 8:
        raise ValueError(
            "has 16 bits a colour but uses at most 12 of them, and only the upper 8 can be read: save it with 8 bits"
        )
    return "has 16 bits a colour, the upper 8 are taken"
