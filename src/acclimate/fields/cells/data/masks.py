"""Masks of cells as they are stored, and the files that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.cells.data.files import images_below
from acclimate.fields.cells.data.reading import read

__all__ = ["mask_files", "mask_levels", "read_mask", "three_levels"]

_CELL, _NUCLEUS = 64, 192

_RIM = 0.02
"""Share of a cell below which grey between black and white is taken for a blurred edge, not for cytoplasm."""

_MOST, _BORDER = 0.95, 0.75
"""Shares of a picture and of its border that a cell covers at most; of a disc that is cut off at all four sides both
are reached together."""


def three_levels(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """From grey levels 0, 128 and 255, and strays between them, to 0 background, 1 cytoplasm, 2 nucleus.

    >>> three_levels(np.array([0, 63, 64, 128, 191, 192, 255], dtype=np.uint8))
    array([0, 0, 1, 1, 1, 2, 2], dtype=uint8)
    """
    return (stored >= _CELL).astype(np.uint8) + (stored >= _NUCLEUS)


def mask_levels(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A stored mask of any of the usual kinds as 0 background, 1 cytoplasm or whole cell, 2 nucleus.

    One without a value above 2 holds these numbers already. Of black and white, white is the whole cell; with enough
    grey between them, grey is the cytoplasm and white the nucleus.

    >>> mask_levels(np.array([0, 255, 255], dtype=np.uint8)), mask_levels(np.array([0, 128, 255], dtype=np.uint8))
    (array([0, 1, 1], dtype=uint8), array([0, 1, 2], dtype=uint8))
    """
    if stored.max() <= 2:
        return stored
    levels = three_levels(stored)
    if (levels == 1).sum() < _RIM * (levels > 0).sum():
        return (levels > 0).astype(np.uint8)
    return levels


def mask_files(folder: str | Path) -> dict[str, Path]:
    """The image files below a folder by their path in it without the suffix.

    Raises:
        FileNotFoundError: no such folder.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root} of masks; expected one with a mask for each picture.")
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in reversed(images_below(root))}


def read_mask(path: Path, shape: tuple[int, ...]) -> tuple[NDArray[Any] | None, str]:
    """The mask of a file as in `mask_levels`, or None and why it is of no use.

    Arguments:
        path: of the file; of colours the brightest counts.
        shape: height and width of the picture that it belongs to.
    """
    reading = read(path, ground=0)
    if reading.pixels is None:
        return None, f"has a mask that {reading.what}"
    if reading.pixels.shape[:2] != shape:
        high, wide = reading.pixels.shape[:2]
        return None, f"has a mask of {wide}x{high} pixels, expected {shape[1]}x{shape[0]} as the picture"
    stored = reading.pixels.max(2)
    levels = mask_levels(stored)
    wrong = _wrong(stored, levels > 0)
    return (None, wrong) if wrong else (levels, "")


def _wrong(stored: NDArray[np.uint8], cell: NDArray[np.bool_]) -> str:
    """Why a mask of the right size is of no use; empty where it is."""
    if not stored.any():
        return "has a mask without a cell"
    if not cell.any():
        return (
            f"has a mask with values up to {stored.max()}, expected 0, 1, 2, or grey levels 0, 128, 255, or white "
            "cells on black"
        )
    if cell.mean() > _MOST:
        return f"has a mask that covers {cell.mean():.0%} of the picture, expected a cell and what is around it"
    border = np.concatenate([cell[0], cell[-1], cell[1:-1, 0], cell[1:-1, -1]])
    if border.mean() > _BORDER:
        return (
            f"has a mask that covers {border.mean():.0%} of the picture's border, expected white cells on black: it "
            "may be inverted"
        )
    return ""
