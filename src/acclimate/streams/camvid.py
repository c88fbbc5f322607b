"""CamVid: road scenes with eleven classes, as one archive for each split."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from acclimate.streams.scenes import VOID, Scenes
from acclimate.streams.shared import require, shared_file

__all__ = ["CAMVID_CLASSES", "camvid"]

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
"""In the order of the labels."""

_STORED_VOID = len(CAMVID_CLASSES)
_SPLITS = ("train", "val", "test")


@lru_cache(maxsize=3)
def _decode(path: Path, modified: int) -> tuple[Tensor, Tensor]:
    image = require("PIL.Image", "Reading JPEG images")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            jpeg, offset, stored = (archive[key] for key in ("jpeg", "offset", "label"))
    except (BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} is not a readable archive of scenes ({error}); expected the arrays jpeg, offset and label. "
            "Fetch the file again."
        ) from error
    if stored.ndim != 3 or len(offset) != len(stored) + 1:
        raise ValueError(
            f"{path} has {len(offset)} offsets and label maps of shape {list(stored.shape)}; expected [N, H, W] and "
            "one offset more than maps."
        )
    if int(stored.max()) > _STORED_VOID:
        raise ValueError(f"{path} has the label {int(stored.max())}; expected 0 to {_STORED_VOID}, the last for void.")
    data = jpeg.tobytes()
    pixels = np.empty((*stored.shape, 3), dtype=np.uint8)
    for i in range(len(stored)):
        try:
            pixels[i] = np.asarray(image.open(BytesIO(data[offset[i] : offset[i + 1]])).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"Image {i} of {path} cannot be decoded ({error}); expected a JPEG file of "
                f"{stored.shape[2]}x{stored.shape[1]} pixels. Fetch the archive again."
            ) from error
    labels = torch.from_numpy(stored.astype(np.int8))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels.masked_fill(labels == _STORED_VOID, VOID)


def camvid(split: str = "test", *, data: str | Path | None = None) -> Scenes:
    """CamVid at 240x180 pixels: 367 images to train, 101 to validate, 233 to test; eleven classes and void.

    Read from `camvid_{train,val,test}.npz` with the arrays `jpeg`, `offset` and `label`: image `i` is the JPEG file
    `jpeg[offset[i]:offset[i + 1]]`, and `label` is uint8 `[N, H, W]` with 11 for void. Decoded images are kept for
    the process.

    Arguments:
        split: `train`, `val` or `test`.
        data: the folder of the archives; by default `data` of the shared folder, see `shared_folder`.

    Raises:
        ValueError: an unknown split, or a file that is damaged or holds something else.
        FileNotFoundError: no such file.
        ImportError: pillow is not installed.

    Source: G. Brostow, J. Fauqueur, R. Cipolla: Semantic object classes in video, Pattern Recognition Letters 2009;
    the split and the eleven classes are those of SegNet (Badrinarayanan et al., PAMI 2017).
    """
    if split not in _SPLITS:
        raise ValueError(f"There is no split {split!r} of CamVid; expected 'train', 'val' or 'test'.")
    archive = f"camvid_{split}.npz"
    if data is None:
        path = shared_file(f"data/{archive}", "name the folder that holds the archives: data=DIR")
    else:
        path = Path(data).expanduser() / archive
        if not path.is_file():
            raise FileNotFoundError(f"There is no {archive} in {path.parent.absolute()}; expected the CamVid archives.")
    path = path.resolve()
    images, labels = _decode(path, path.stat().st_mtime_ns)
    return Scenes("camvid", images, labels, CAMVID_CLASSES, split)
