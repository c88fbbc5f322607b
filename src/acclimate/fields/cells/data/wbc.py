"""Four public laboratories with five kinds of white blood cells: JTSC, CellaVision, Chula and BCCD."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core import config
from acclimate.fields.cells.data.archives import arrays, unpacked
from acclimate.fields.cells.data.classes import COMMON
from acclimate.fields.cells.data.crops import crop_cell, whole
from acclimate.fields.cells.data.frames import grey_frame
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.data.masks import three_levels
from acclimate.streams.image_files import in_threads
from acclimate.streams.shared import shared_file

__all__ = ["LABORATORIES", "laboratories"]

LABORATORIES = ("jtsc", "cellavision", "chula", "bccd")

_MASKED = {"jtsc": "wbc_tecom.npz", "cellavision": "wbc_cellavision.npz"}
_CROPS = "wbc4_crops.npz"


def laboratories(size: int = 128, data: str | Path | None = None) -> dict[str, Laboratory]:
    """The cells of `jtsc` (300, with masks), `cellavision` (100, with masks), `chula` (511) and `bccd` (341).

    One square picture for each cell, `MARGIN` times the longer side of its box, as `crops.crop` makes it. Decoded
    pictures are kept for the process; take care not to change them. Basophils are few (1, 3, 100, 2): see `FOUR`.

    Read from three archives. `wbc4_crops.npz` holds crops of 128x128 pixels of all four. Those of `jtsc` and
    `cellavision` show the same cells, in the same order, as the full pictures in `wbc_tecom.npz` and
    `wbc_cellavision.npz`, cut by the same recipe to within a pixel. Images and masks of these two are therefore made
    here from the full pictures, so that they align. Their stored crops differ in three ways: they lie up to a pixel
    off, are JPEG, and those of `cellavision` were cut from pictures of twice the resolution and are sharper. Beyond the
    edge of a picture the stored crops are black, which is replaced by grey as in the recipe; see `frames.grey_frame`.

    Some cells were photographed twice or more: by correlation at a quarter of the resolution, allowing for shifts, at
    least 14 pairs of `jtsc` (59 and 89 under two different labels), about 65 cells of `chula` (80 and 88 likewise) and
    8 pairs of `bccd`. Folds that part such pairs score too well; from one laboratory to another it does not matter.

    Arguments:
        size: pixels of a side, 8 or more; above 128 nothing is gained but the size that a model wants.
        data: the folder of the archives; by default `data` of the shared folder, see `shared_folder`.

    Raises:
        FileNotFoundError: an archive that is missing.
        ValueError: one that is damaged or holds something else, or an impossible size.
        ImportError: pillow is not installed.

    Sources: github.com/zxaoyou/segmentation_WBC (X. Zheng et al., Micron 2018; Jiangxi Tecom, CellaVision),
    singgihbekti/WBC_Dataset, Shenggan/BCCD_Dataset with sub-types of dhruvp/wbc-classification. Labels of the first two
    were not checked by experts.
    """
    config.whole(8, size=size)
    return {name: _masked(name, size, data) if name in _MASKED else _cropped(name, size, data) for name in LABORATORIES}


def _masked(name: str, size: int, data: str | Path | None) -> Laboratory:
    path = _archive(_MASKED[name], data)
    return _laboratory(name, *_decode_masked(path, path.stat().st_mtime_ns, size))


def _cropped(name: str, size: int, data: str | Path | None) -> Laboratory:
    path = _archive(_CROPS, data)
    return _laboratory(name, *_decode_crops(path, path.stat().st_mtime_ns, name, size), None)


def _laboratory(name: str, images: Tensor, labels: Tensor, masks: Tensor | None) -> Laboratory:
    keys = tuple(f"{name}/{place:03d}" for place in range(len(images)))
    return Laboratory(name, images, labels, COMMON, keys, masks)


def _archive(name: str, data: str | Path | None) -> Path:
    if data is None:
        return shared_file(f"data/{name}", "name the folder that holds the archives: data=DIR").resolve()
    path = Path(data).expanduser() / name
    if not path.is_file():
        raise FileNotFoundError(f"There is no {name} in {path.parent.absolute()}; expected the archives of cells.")
    return path.resolve()


@lru_cache(maxsize=4)
def _decode_masked(path: Path, modified: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    names = ("image_png", "image_offset", "mask_png", "mask_offset", "label", "classes")
    stored = arrays(path, names)
    images, masks = unpacked(path, stored, "image_png", "RGB"), unpacked(path, stored, "mask_png", "L")
    labels = _labels(path, stored["label"], stored["classes"], len(images))
    odd = [i for i, (image, mask) in enumerate(zip(images, masks, strict=False)) if image.shape[:2] != mask.shape]
    if len(masks) != len(images) or odd:
        raise ValueError(
            f"{path} has {len(images)} images and {len(masks)} masks, and {len(odd)} masks of another size than their "
            "image; expected one mask of its size for each. Fetch the file again."
        )
    pairs = [(image, three_levels(mask)) for image, mask in zip(images, masks, strict=True)]
    cut = in_threads(lambda pair: crop_cell(*pair, size), pairs)
    maps = torch.from_numpy(np.stack([mask for _, mask in cut]).astype(np.int8))
    return _stacked([image for image, _ in cut]), labels, maps


@lru_cache(maxsize=4)
def _decode_crops(path: Path, modified: int, name: str, size: int) -> tuple[Tensor, Tensor]:
    stored = arrays(path, (f"{name}_jpeg", f"{name}_offset", f"{name}_label", "classes"))
    images = unpacked(path, stored, f"{name}_jpeg", "RGB")
    labels = _labels(path, stored[f"{name}_label"], stored["classes"], len(images))
    return _stacked(in_threads(lambda image: _fitted(grey_frame(image), size), images)), labels


def _fitted(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return image if image.shape[:2] == (size, size) else whole(image, size, how="bicubic")


def _stacked(images: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _labels(path: Path, stored: NDArray[Any], classes: NDArray[Any], count: int) -> Tensor:
    """Labels from 0. ValueError unless there is one for each image and classes are the usual ones."""
    names = tuple(str(name) for name in classes)[1:]
    if (
        names != COMMON
        or stored.shape != (count,)
        or not count
        or not (stored.min() > 0 and stored.max() <= len(COMMON))
    ):
        raise ValueError(
            f"{path} has {len(stored)} labels for {count} images, of the classes {', '.join(names)}; expected one for "
            f"each, counting from 1, of {', '.join(COMMON)}. Fetch the file again."
        )
    return torch.from_numpy(stored.astype(np.int64)) - 1
