"""Black frames of pictures that were cut out beyond the edge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.cells.data.crops import GREY

__all__ = ["grey_frame"]

_DARK = 16
"""Mean brightness of a line, 0 to 255, below which nothing was photographed there."""


def grey_frame(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with black lines at its edges in `GREY`, as the crop recipe has it; one that is all black stays.

    The line next to a frame is part of it, too: scaling has mixed it.

    Arguments:
        image: uint8 `[H, W, 3]`.
    """
    bright = image.max(2)
    framed = image.copy()
    for axis in (0, 1):
        dark = bright.mean(1 - axis) < _DARK
        lines = np.moveaxis(framed, axis, 0)
        first, last = int(np.argmin(dark)), int(np.argmin(dark[::-1]))
        if first:
            lines[: first + 1] = GREY
        if last:
            lines[-last - 1 :] = GREY
    return framed
