"""A tree of image files, one folder for each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.streams.dataset import Dataset, LazyImages
from acclimate.streams.image_files import SUFFIXES, in_threads, is_image, open_image, pixels, rgb
from acclimate.streams.shared import require

__all__ = ["image_folder"]


class _ImageFiles(LazyImages):
    """Image files, decoded, resized and cropped for each batch."""

    def __init__(self, paths: list[Path], resize: int | None, crop: int) -> None:
        self._paths, self._resize, self._crop = paths, resize, crop
        self._pillow = require("PIL.Image", "Reading image files")
        if resize is not None and all(self._size(path) == (crop, crop) for path in paths):
            self._resize = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._paths), 3, self._crop, self._crop

    def read(self, index: Tensor) -> Tensor:
        return torch.stack(in_threads(self._decode, [self._paths[i] for i in index.tolist()]))

    def source(self, index: Tensor) -> Iterator[bytes]:
        yield f"resize {self._resize}, crop {self._crop}".encode()
        for i in index.tolist():
            yield self._paths[i].read_bytes()

    def _size(self, path: Path) -> tuple[int, int]:
        with open_image(path) as image:
            return image.size

    def _decode(self, path: Path) -> Tensor:
        image: Any = rgb(path)
        if self._resize is not None:
            scale = self._resize / min(image.size)
            wide, high = (max(self._resize, round(side * scale)) for side in image.size)
            image = image.resize((wide, high), self._pillow.Resampling.BILINEAR)
        wide, high = image.size
        if min(wide, high) < self._crop:
            raise ValueError(
                f"{path} is {wide}x{high}; expected at least {self._crop}x{self._crop}. Let it be resized "
                "(resize=256), or choose a smaller crop."
            )
        left, top = (wide - self._crop) // 2, (high - self._crop) // 2
        return pixels(image.crop((left, top, left + self._crop, top + self._crop)))


def image_folder(folder: Path | str, split: str = "test", *, resize: int | None = 256, crop: int = 224) -> Dataset:
    """`folder/<class>/<image>` as a data set; classes and files in sorted order.

    Images are decoded when a batch needs them. The shorter side is scaled to `resize` (bilinear) and the
    middle `crop` x `crop` pixels are kept. Images that are all `crop` x `crop` already are taken as they are,
    which is the protocol of ImageNet-C. Files that are no images by their suffix, and hidden ones, are left
    out.

    Arguments:
        folder: the folder of class folders.
        split: goes into the protocol; the folder itself decides what is read.
        resize: pixels of the shorter side, or `None` never to resize.
        crop: pixels of the square that is kept.

    Raises:
        FileNotFoundError: no such folder, or no images in `<class>` folders.
        ImportError: pillow is not installed.
        ValueError: an image that cannot be read or is too small; impossible sizes.
    """
    root = Path(folder).expanduser()
    if crop < 1 or (resize is not None and resize < crop):
        raise ValueError(f"resize={resize} and crop={crop}; expected 1 <= crop <= resize.")
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}; expected one with a folder for each class.")
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (root / name).iterdir() if is_image(path.name))
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise FileNotFoundError(
            f"{root} has {len(classes)} folders and no images in them; expected <class>/<image> with one of "
            f"the suffixes {' '.join(sorted(SUFFIXES))}."
        )
    return Dataset("folder", _ImageFiles(paths, resize, crop), torch.tensor(labels), tuple(classes), split)
