r"""A baseline: 16 numbers that an expert would look at, from a picture and its mask.

Colours enter as differences and deviations rather than as they are: stains and lamps change from laboratory to
laboratory, how much darker the nucleus is than its surroundings changes less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.cells.classify.arrays import Array, Floats, plain
from acclimate.fields.cells.classify.pixels import as_images
from acclimate.streams.shared import require

__all__ = ["HAND_MADE", "hand_made"]

HAND_MADE = (
    "nucleus_share",
    "nucleus_parts",
    "nucleus_roundness",
    "nucleus_fullness",
    "cell_roundness",
    *(f"nucleus_{channel}_deviation" for channel in ("red", "green", "blue")),
    *(f"cytoplasm_{channel}_deviation" for channel in ("red", "green", "blue")),
    *(f"{channel}_contrast" for channel in ("red", "green", "blue")),
    "cytoplasm_red_over_green",
    "cytoplasm_red_over_blue",
)
"""Names of the features, in order."""

_AT_ONCE = 64
_SPECK = 0.02
"""Parts of the nucleus below this share of it are not counted."""


def hand_made(images: Array, masks: Array) -> NDArray[np.float32]:
    r"""Shape and colour of cells, uint8 `[N, 3, S, S]` and masks `[N, S, S]` to finite float32 `[N, 16]`.

    With A the area and P the perimeter (Cauchy-Crofton) of a region and $\Sigma$ the covariance of its pixels:

    * share of the nucleus in the cell's area; number of its connected parts (4 neighbours) of 2 % of it or more;
    * roundness $4 \pi A / P^2$ of nucleus and cell: about 1 for a disc, less for a ragged outline;
    * fullness $A / (4 \pi \sqrt{\det \Sigma})$ of the nucleus: 1 for an ellipse, less where it is lobed or in parts;
    * standard deviation of red, green and blue in nucleus and cytoplasm, colours from 0 to 1: granules raise it;
    * mean colour of the cytoplasm minus that of the nucleus; the cytoplasm's mean red minus green, and minus blue.

    What a cell lacks (no nucleus, no cytoplasm, an empty mask) is 0 in everything that needs it.

    Arguments:
        images: square pictures of one cell each, at one size.
        masks: whole numbers: 0 background, 1 cytoplasm, 2 nucleus.

    Raises:
        ValueError: other types, shapes or mask values.
        ImportError: scipy is not installed.
    """
    pictures, regions = as_images(images), plain(masks)
    if regions.shape != (len(pictures), *pictures.shape[2:]) or regions.dtype.kind not in "iu":
        raise ValueError(
            f"The masks are {regions.dtype} {list(regions.shape)}; expected whole numbers "
            f"{[len(pictures), *pictures.shape[2:]]}, one for each picture."
        )
    if regions.size and not 0 <= regions.min() <= regions.max() <= 2:
        raise ValueError(
            f"The masks hold values from {regions.min()} to {regions.max()}; expected 0 background, 1 cytoplasm and 2 "
            "nucleus."
        )
    rows = [
        _some(pictures[start : start + _AT_ONCE], regions[start : start + _AT_ONCE])
        for start in range(0, len(pictures), _AT_ONCE)
    ]
    return np.concatenate([np.empty((0, len(HAND_MADE))), *rows]).astype(np.float32)


def _some(images: NDArray[np.uint8], masks: NDArray[Any]) -> Floats:
    nucleus, cytoplasm = (masks == 2).astype(np.float64), (masks == 1).astype(np.float64)
    cell = nucleus + cytoplasm
    area = _area(cell)
    (dark, dark_spread), (light, light_spread) = _colour(images, nucleus), _colour(images, cytoplasm)
    both = (_area(nucleus) > 0) & (_area(cytoplasm) > 0)
    shapes = [
        _area(nucleus) / np.maximum(area, 1),
        _parts(nucleus),
        _roundness(nucleus),
        _fullness(nucleus),
        _roundness(cell),
    ]
    hue = [light[:, 0] - light[:, 1], light[:, 0] - light[:, 2]]
    contrast = (light - dark) * both[:, None]
    return np.concatenate([np.stack(shapes, 1), dark_spread, light_spread, contrast, np.stack(hue, 1)], 1)


def _area(region: Floats) -> Floats:
    return region.sum((1, 2))


def _colour(images: NDArray[np.uint8], region: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each channel in a region, `[N, 3]`; 0 where it is empty."""
    colours = images / 255.0
    weights = region / np.maximum(_area(region), 1)[:, None, None]
    mean = np.einsum("nchw,nhw->nc", colours, weights)
    square = np.einsum("nchw,nhw->nc", (colours - mean[:, :, None, None]) ** 2, weights)
    return mean, np.sqrt(square)


def _parts(nucleus: Floats) -> Floats:
    """How many connected parts are more than specks, `[N]`."""
    label = require("scipy.ndimage", "Counting parts of the nucleus", "cells").label
    sizes = [np.bincount(label(region)[0].ravel())[1:] for region in nucleus]
    return np.array([(size >= _SPECK * size.sum()).sum() for size in sizes], dtype=np.float64)


def _roundness(region: Floats) -> Floats:
    r"""$4 \pi A / P^2$, with P from how often lines in four directions enter or leave the region."""
    framed = np.pad(region, ((0, 0), (1, 1), (1, 1)))
    straight = np.abs(np.diff(framed, axis=1)).sum((1, 2)) + np.abs(np.diff(framed, axis=2)).sum((1, 2))
    slanted = np.abs(framed[:, 1:, 1:] - framed[:, :-1, :-1]) + np.abs(framed[:, 1:, :-1] - framed[:, :-1, 1:])
    perimeter = np.pi / 8 * (straight + slanted.sum((1, 2)) / np.sqrt(2))
    return 4 * np.pi * _area(region) / np.maximum(perimeter, 1) ** 2


def _fullness(region: Floats) -> Floats:
    """Area over that of the ellipse with the same second moments; a pixel is a square, so that a line has a width."""
    weights = region / np.maximum(_area(region), 1)[:, None, None]
    down, across = weights.sum(2), weights.sum(1)
    rows, columns = np.arange(region.shape[1]), np.arange(region.shape[2])
    y, x = down @ rows, across @ columns
    tall, wide = down @ rows**2 - y**2 + 1 / 12, across @ columns**2 - x**2 + 1 / 12
    tilt = np.einsum("nhw,h,w->n", weights, rows, columns) - y * x
    return _area(region) / (4 * np.pi * np.sqrt(np.maximum(tall * wide - tilt**2, 1 / 144)))
