"""CIFAR-10 as one archive of JPEG files."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from acclimate.streams.dataset import Dataset
from acclimate.streams.shared import require

__all__ = ["cifar_archive"]


@lru_cache(maxsize=2)
def _decode(path: Path, modified: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    image = require("PIL.Image", "Reading JPEG images")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            jpeg, offset, label, names = (archive[key] for key in ("jpeg", "offset", "label", "classes"))
    except (BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} is not a readable archive of JPEG images ({error}); expected the arrays jpeg, offset, "
            "label and classes. Fetch the file again."
        ) from error
    if len(offset) != len(label) + 1:
        raise ValueError(f"{path} has {len(offset)} offsets for {len(label)} labels; expected one more.")
    data = jpeg.tobytes()
    pixels = np.empty((len(label), 32, 32, 3), dtype=np.uint8)
    for i in range(len(label)):
        try:
            pixels[i] = np.asarray(image.open(BytesIO(data[offset[i] : offset[i + 1]])).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"Image {i} of {path} cannot be decoded ({error}); expected a JPEG file of 32x32 pixels. Fetch "
                "the archive again."
            ) from error
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(label.astype(np.int64)), tuple(map(str, names))


def cifar_archive(path: Path, split: str) -> Dataset:
    """CIFAR-10 from an archive with the arrays `jpeg`, `offset`, `label` and `classes`.

    Image `i` is the JPEG file `jpeg[offset[i]:offset[i + 1]]`. Decoded images are kept for the process, since
    decoding takes seconds.

    Raises:
        ImportError: pillow is not installed.
        ValueError: the file is damaged or holds something else.
    """
    path = path.resolve()
    images, labels, classes = _decode(path, path.stat().st_mtime_ns)
    return Dataset("cifar10", images, labels, classes, split)
