"""A baseline: the picture itself, small."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from acclimate.fields.cells.classify.arrays import Array, plain

__all__ = ["as_images", "raw_pixels"]

_SIDE = 16
_AT_ONCE = 64


def raw_pixels(images: Array) -> NDArray[np.float32]:
    """Mean colour of each part of a 16 x 16 grid, uint8 `[N, 3, S, S]` to float32 `[N, 768]` in `[0, 1]`.

    Channel by channel, row by row. ValueError for another type or shape.
    """
    found = as_images(images)
    rows = [
        functional.adaptive_avg_pool2d(torch.from_numpy(found[start : start + _AT_ONCE]).float() / 255, _SIDE).flatten(
            1
        )
        for start in range(0, len(found), _AT_ONCE)
    ]
    return torch.cat(rows).numpy() if rows else np.empty((0, 3 * _SIDE**2), dtype=np.float32)


def as_images(images: Array) -> NDArray[np.uint8]:
    """Images as numpy uint8 `[N, 3, S, S]`; ValueError for another type or shape."""
    found = plain(images)
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[1] != 3 or 0 in found.shape[2:]:
        raise ValueError(f"The images are {found.dtype} {list(found.shape)}; expected uint8 [N, 3, S, S].")
    return found
