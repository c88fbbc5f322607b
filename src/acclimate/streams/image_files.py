"""Image files, decoded several at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from acclimate.streams.shared import require

__all__ = ["SUFFIXES", "in_threads", "is_image", "open_image", "pixels", "rgb"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

_THREADS = min(8, os.cpu_count() or 1)

A = TypeVar("A")
B = TypeVar("B")


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its suffix, unless it is hidden.

    >>> is_image("a.JPEG"), is_image(".a.png"), is_image("a.txt")
    (True, False, False)
    """
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")  # noqa: PTH122


def open_image(path: Path) -> Any:
    """The image of a file, not decoded yet.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no image.
    """
    pillow = require("PIL.Image", "Reading image files")
    try:
        return pillow.open(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} is not a readable image ({error}). Remove or replace it.") from error


def rgb(path: Path) -> Any:
    """The decoded image of a file, in RGB.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no image, or a damaged one.
    """
    with open_image(path) as image:
        try:
            return image.convert("RGB")
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{path} is a damaged image ({error}). Remove or replace it.") from error


def pixels(image: Any) -> Tensor:
    """The pixels of an RGB image: uint8 `[3, H, W]`."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)


def in_threads(make: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """`make` of each item, in order; by several threads, since files are read and decoded without Python's lock.

    >>> in_threads(len, ["a", "bc"])
    [1, 2]
    """
    if min(len(items), _THREADS) < 2:
        return [make(item) for item in items]
    with ThreadPoolExecutor(min(len(items), _THREADS), "acclimate-decode") as pool:
        return list(pool.map(make, items))
