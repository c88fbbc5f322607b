"""Pictures with more than eight bits a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEEP", "eight_bits", "upper_bits"]

DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
"""The modes of Pillow with one channel of more than eight bits."""

_BITS = {65535: "16 bits", 4095: "12 bits in 16"}


def eight_bits(values: NDArray[Any]) -> tuple[NDArray[np.uint8], str]:
    """Values of more than eight bits as uint8, and what was done in words.

    They are scaled by 65535 where the largest is above 4095, by 4095 where it is above 255, and else taken as they are;
    fractions of which none is above 1 are scaled by 1.

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
    scaled = values.astype(np.float64)
    if values.dtype.kind == "f" and high <= 1:
        return np.rint(scaled * 255).astype(np.uint8), "holds fractions, scaled by 1"
    if high <= 255:
        return np.rint(scaled).astype(np.uint8), "has more than 8 bits a pixel but none above 255, taken as 8 bits"
    scale = 65535 if high > 4095 else 4095
    return np.rint(scaled * (255 / scale)).astype(np.uint8), f"has {_BITS[scale]}, scaled by {scale}"


def upper_bits(pixels: NDArray[np.uint8]) -> str:
    """What is to be said of colours of 16 bits, whose upper eight were decoded.

    Raises:
        ValueError: next to nothing is in the upper eight, so only twelve bits or fewer were used.
    """
    if pixels.max() <= 4095 >> 8:
        raise ValueError(
            "has 16 bits a colour but uses at most 12 of them, and only the upper 8 can be read: save it with 8 bits"
        )
    return "has 16 bits a colour, the upper 8 are taken"
