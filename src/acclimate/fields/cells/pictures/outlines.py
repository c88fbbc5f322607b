"""The contours of cell and nucleus, drawn on the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.streams.shared import require

__all__ = ["CELL", "NUCLEUS", "enlarged", "outlined"]

CELL, NUCLEUS = (0, 158, 60), (255, 221, 0)
"""Colours of their contours, red, green and blue from 0 to 255."""


def enlarged(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A square picture uint8 `[3, S, S]` as `[side, side, 3]`, by cubic interpolation."""
    pillow: Any = require("PIL.Image", "Resizing images", "cells")
    whole = pillow.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return np.array(whole.resize((side, side), pillow.Resampling.BICUBIC))


def outlined(image: NDArray[np.uint8], mask: NDArray[np.int8], side: int) -> NDArray[np.uint8]:
    """The picture with contours.

    Arguments:
        image: uint8 `[3, S, S]`.
        mask: `[S, S]`, 0 background, 1 cytoplasm or the whole cell, 2 nucleus.
        side: pixels of a side of what is drawn.

    Returns: uint8 `[side, side, 3]`. Raises ImportError without Pillow and scipy.
    """
    pillow: Any = require("PIL.Image", "Resizing images", "cells")
    ndimage: Any = require("scipy.ndimage", "Drawing contours", "cells")
    drawn = enlarged(image, side)
    width = max(1, side // 110)
    for least, colour in ((1, CELL), (2, NUCLEUS)):
        soft = pillow.fromarray((mask >= least).astype(np.uint8) * 255)
        region = np.asarray(soft.resize((side, side), pillow.Resampling.BICUBIC)) > 127
        drawn[region & ~ndimage.binary_erosion(region, iterations=width, border_value=1)] = colour
    return drawn
