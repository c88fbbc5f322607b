"""How a picture of a cell is brought to one size, and its mask with it."""

from __future__ import annotations

from math import ceil, floor
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.core import config
from acclimate.streams.shared import require

__all__ = ["GREY", "MARGIN", "Box", "Sampling", "box_of", "crop", "crop_cell", "whole", "window"]

GREY = 128
"""What stands for pixels outside the picture."""

MARGIN = 1.25
"""Side of the window by the longer side of the cell's box."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels; right and bottom are the first that no longer belong to it."""

Sampling: TypeAlias = Literal["bilinear", "bicubic"]


def box_of(mask: NDArray[Any]) -> Box:
    """The smallest box around all that is above zero in a mask `[H, W]`.

    Raises:
        ValueError: there is nothing.

    >>> box_of(np.array([[0, 0, 0], [0, 1, 2]]))
    (1, 1, 3, 2)
    """
    across, down = np.flatnonzero((mask > 0).any(0)), np.flatnonzero((mask > 0).any(1))
    if not len(across):
        raise ValueError("The mask is empty; expected a cell in it.")
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1


def window(box: Box) -> tuple[float, float, float]:
    """Left, top and side of the square around a cell: `MARGIN` times the longer side of its box, the same centre.

    Raises:
        ValueError: a box without an inside.

    >>> window((10, 20, 18, 26))
    (9.0, 18.0, 10.0)
    """
    left, top, right, bottom = box
    if not (left < right and top < bottom):
        raise ValueError(f"The box is {box}; expected left, top, right, bottom with left < right and top < bottom.")
    side = MARGIN * max(right - left, bottom - top)
    return (left + right - side) / 2, (top + bottom - side) / 2, side


def crop(picture: NDArray[Any], box: Box, size: int) -> NDArray[Any]:
    """The square window around a cell, at one size.

    Arguments:
        picture: an image, uint8 `[H, W, 3]`, or a mask of small whole numbers, `[H, W]`.
        box: of the cell.
        size: pixels of a side of the result, 8 or more.

    Returns `[size, size, 3]` or `[size, size]`, of the type of `picture`. Images are sampled bicubically and `GREY`
    outside, masks by the nearest pixel and 0 outside.

    Raises:
        ValueError: a box without an inside, another kind of picture, or an impossible size.
        ImportError: pillow is not installed.
    """
    left, top, side = window(box)
    x, y = floor(left), floor(top)
    source, ground, how = _opened(picture, size, "bicubic")
    corner = (ceil(left + side) - x, ceil(top + side) - y)
    canvas = require("PIL.Image", "Cropping images").new(source.mode, corner, ground)
    canvas.paste(source, (-x, -y))
    region = (left - x, top - y, min(left - x + side, corner[0]), min(top - y + side, corner[1]))
    return np.array(canvas.resize((size, size), how, box=region)).astype(picture.dtype)


def crop_cell(image: NDArray[np.uint8], mask: NDArray[Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Image and mask in the window around the mask's cell; see `crop`. ValueError where the mask is empty."""
    box = box_of(mask)
    return crop(image, box, size), crop(mask, box, size)


def whole(picture: NDArray[Any], size: int, *, how: Sampling = "bilinear") -> NDArray[Any]:
    """The whole picture at one size, its aspect ratio given up: for pictures that show a single cell already.

    Arguments:
        picture: as in `crop`.
        size: as in `crop`.
        how: an image is sampled, `bilinear` or `bicubic`; a mask is by the nearest pixel.

    Result and errors are those of `crop`.
    """
    source, _, filtered = _opened(picture, size, how)
    return np.array(source.resize((size, size), filtered)).astype(picture.dtype)


def _opened(picture: NDArray[Any], size: int, how: Sampling) -> tuple[Any, Any, Any]:
    """The picture for Pillow, what is outside it, and how it is sampled."""
    config.whole(8, size=size)
    config.one_of("bilinear", "bicubic", how=how)
    pillow = require("PIL.Image", "Resizing images")
    if picture.ndim == 2 and picture.size:
        return pillow.fromarray(picture.astype(np.uint8)), 0, pillow.Resampling.NEAREST
    if picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8 and picture.size:
        return pillow.fromarray(np.ascontiguousarray(picture)), (GREY,) * 3, getattr(pillow.Resampling, how.upper())
    raise ValueError(
        f"The picture is {picture.dtype} {list(picture.shape)}; expected an image, uint8 [H, W, 3], or a mask, [H, W]."
    )
