"""Cityscapes and ACDC as they are unpacked: photographs of roads, with label maps of 19 classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from acclimate.streams.dataset import LazyImages
from acclimate.streams.image_files import in_threads, open_image, pixels, rgb
from acclimate.streams.scenes import VOID, LazyMaps, Scenes
from acclimate.streams.segments import suggest
from acclimate.streams.shared import require

__all__ = ["ROAD_CLASSES", "acdc", "cityscapes"]

_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip

ROAD_CLASSES = tuple(_IDS)
"""The classes that are trained and scored, in the order of their train ids."""

_LABELS = ("labelTrainIds", "labelIds")
"""Which label files are taken, the first that is there."""

_CONDITIONS = ("fog", "night", "rain", "snow")


def _table(kind: str) -> np.ndarray:
    """From what a label file stores to the class, `VOID` for all else: int64 [256]."""
    table = np.full(256, VOID, dtype=np.int64)
    for number, stored in enumerate(_IDS.values()):
        table[number if kind == "labelTrainIds" else stored] = number
    return table


class _Photos(LazyImages):
    ahead: ClassVar[int] = 2

    def __init__(self, paths: list[Path], size: tuple[int, int]) -> None:
        self._paths, self._size = paths, size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._paths), 3, *self._size

    def read(self, index: Tensor) -> Tensor:
        return torch.stack(in_threads(self._decode, [self._paths[i] for i in index.tolist()]))

    def source(self, index: Tensor) -> Iterator[bytes]:
        yield f"bilinear to {self._size}".encode()
        for i in index.tolist():
            yield self._paths[i].read_bytes()

    def _decode(self, path: Path) -> Tensor:
        return pixels(_fitted(rgb(path), self._size, "BILINEAR"))


class _Maps(LazyMaps):
    def __init__(self, paths: list[Path], size: tuple[int, int]) -> None:
        self._paths, self._size = paths, size
        self._tables = {kind: _table(kind) for kind in _LABELS}

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self._paths), *self._size

    def read(self, index: Tensor) -> Tensor:
        return torch.stack(in_threads(self._decode, [self._paths[i] for i in index.tolist()]))

    def source(self, index: Tensor) -> Iterator[bytes]:
        yield f"nearest to {self._size}".encode()
        for i in index.tolist():
            yield _kind(self._paths[i]).encode() + self._paths[i].read_bytes()

    def _decode(self, path: Path) -> Tensor:
        with open_image(path) as image:
            if image.mode not in ("L", "P"):
                raise ValueError(
                    f"{path} is an image of mode {image.mode}; expected one number for each pixel. Take the files that "
                    "end in labelIds.png or labelTrainIds.png, not the coloured ones."
                )
            stored = np.asarray(_fitted(image, self._size, "NEAREST"))
        return torch.from_numpy(self._tables[_kind(path)][stored])


def _kind(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def _fitted(image: Any, size: tuple[int, int], how: str) -> Any:
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), getattr(require("PIL.Image", "Reading image files").Resampling, how))


def _scenes(
    name: str, split: str, photos: Path, labels: Path, ends: tuple[str, str], size: tuple[int, int] | None
) -> Scenes:
    """The photographs `<photos>/<folder>/<stem><ends[0]>.png` with `<labels>/<folder>/<stem><ends[1]>_<kind>.png`."""
    if size is not None and min(size) < 1:
        raise ValueError(f"pixels is {size}; expected a height and a width of 1 or more, or None.")
    paths = sorted(photos.glob(f"*/*{ends[0]}.png")) if photos.is_dir() else []
    if not paths:
        raise FileNotFoundError(
            f"There are no photographs {photos}/*/*{ends[0]}.png; expected the unpacked folders of {name}."
        )
    maps = [
        _label_file(labels / path.parent.name, path.name.removesuffix(f"{ends[0]}.png") + ends[1]) for path in paths
    ]
    shape = _stored_size(paths[0]) if size is None else size
    return Scenes(name, _Photos(paths, shape), _Maps(maps, shape), ROAD_CLASSES, split)


def _stored_size(path: Path) -> tuple[int, int]:
    with open_image(path) as image:
        width, height = image.size
    return height, width


def _label_file(folder: Path, start: str) -> Path:
    for kind in _LABELS:
        path = folder / f"{start}_{kind}.png"
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"There is no {start}_labelIds.png in {folder}, and no {start}_labelTrainIds.png. Unpack the ground truth, "
        "too; the test splits have none."
    )


def cityscapes(folder: str | Path, split: str = "val", *, pixels: tuple[int, int] | None = None) -> Scenes:
    """Cityscapes: `leftImg8bit/<split>/<city>/*_leftImg8bit.png`, `gtFine/<split>/<city>/*_gtFine_labelIds.png`.

    Files are decoded when a batch needs them. `labelTrainIds` files are preferred where they are; of `labelIds` the 19
    classes that are trained become 0 to 18, all others `VOID`.

    Arguments:
        folder: with `leftImg8bit` and `gtFine`.
        split: `train` or `val`.
        pixels: height and width that images (bilinear) and labels (nearest) are brought to; None for as they are.

    Raises:
        FileNotFoundError: no such folder, or a photograph without labels.
        ValueError: while reading, a file that is damaged or of another kind.
        ImportError: pillow is not installed.

    Source: M. Cordts et al., CVPR 2016.
    """
    root = Path(folder).expanduser()
    ends = ("_leftImg8bit", "_gtFine")
    return _scenes("cityscapes", split, root / "leftImg8bit" / split, root / "gtFine" / split, ends, pixels)


def acdc(folder: str | Path, condition: str, split: str = "train", *, pixels: tuple[int, int] | None = None) -> Scenes:
    """One condition of ACDC: `rgb_anon/<condition>/<split>/<sequence>/*_rgb_anon.png`, `gt/.../*_gt_labelIds.png`.

    Arguments:
        folder: with `rgb_anon` and `gt`.
        condition: `fog`, `night`, `rain` or `snow`.
        split: `train` or `val`.
        pixels: as in `cityscapes`, and so are the labels and what is raised.

    Raises:
        ValueError: an unknown condition.

    Source: C. Sakaridis, D. Dai, L. Van Gool, ICCV 2021.
    """
    if condition not in _CONDITIONS:
        raise ValueError(f"There is no condition {condition!r} in ACDC. {suggest(condition, _CONDITIONS)}")
    root = Path(folder).expanduser()
    photos, labels = (root / kind / condition / split for kind in ("rgb_anon", "gt"))
    return _scenes("acdc", split, photos, labels, ("_rgb_anon", "_gt"), pixels)
