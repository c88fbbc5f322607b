"""What an autoencoder has to draw: the cell alone, on grey, filling the frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acclimate.fields.cells.data.crops import GREY
from acclimate.streams.image_files import in_threads
from acclimate.streams.shared import require

__all__ = ["largest_part", "targets"]


_FRAME = 10


def targets(images: Tensor, cells: Tensor, size: int = 128) -> tuple[Tensor, list[int]]:
    """The pictures to draw, and the places of the images whose mask is empty and counts as full.

    All outside the largest connected part of the mask is 128; what is left is cut out, gets a frame of 10 pixels of
    128, and is stretched to `size` a side by cubic interpolation, in floating point and cut to 0 to 255.

    The cubic is Pillow's: convolution with a = -0.5, over a wider window where pixels get fewer. The published one is
    a spline of order 3 through the pixels, which is a little sharper and does not smooth what it makes smaller.

    Arguments:
        images: uint8 `[N, 3, H, W]`.
        cells: bool `[N, H, W]`, what belongs to a cell.
        size: pixels of a side.

    Returns: float32 `[N, 3, size, size]` in [0, 1], and the places.
    Raises ImportError without Pillow and scipy. Source: BC-SAM (arXiv 2408.06716).
    """
    if images.ndim != 4 or cells.shape != (images.shape[0], *images.shape[2:]):
        raise ValueError(
            f"found images {list(images.shape)} and masks {list(cells.shape)}, expected [N, 3, H, W] and [N, H, W]."
        )
    empty = (~cells.flatten(1).any(1)).nonzero()[:, 0].tolist()
    pairs = list(zip(images.numpy(), cells.numpy(), strict=True))
    drawn: Sequence[np.ndarray] = in_threads(lambda pair: _drawn(*pair, size), pairs)
    return torch.from_numpy(np.stack(drawn)) / 255, empty


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest part of a mask `[H, W]` that hangs together over edges; of equals the first; a full one if empty."""
    ndimage: Any = require("scipy.ndimage", "Finding connected parts of masks", "cells")
    marks, count = ndimage.label(mask)
    if not count:
        return np.ones_like(mask, dtype=bool)
    return marks == 1 + np.bincount(marks.ravel())[1:].argmax()


def _drawn(image: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    pillow: Any = require("PIL.Image", "Resizing images", "cells")
    cell = largest_part(mask)
    rows, columns = (np.flatnonzero(cell.any(axis)) for axis in (1, 0))
    alone = np.where(cell, image, GREY)[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    framed = np.pad(alone, ((0, 0), (_FRAME, _FRAME), (_FRAME, _FRAME)), constant_values=GREY).astype(np.float32)
    cubic = pillow.Resampling.BICUBIC
    planes = [np.asarray(pillow.fromarray(plane).resize((size, size), cubic)) for plane in framed]
    return np.clip(np.stack(planes), 0, 255)
