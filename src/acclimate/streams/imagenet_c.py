"""ImageNet-C as published: `<corruption>/<severity>/<class>/<image>.JPEG`, 224x224 already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from acclimate.streams.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS
from acclimate.streams.dataset import Dataset, LazyImages
from acclimate.streams.image_files import in_threads, is_image, pixels, rgb
from acclimate.streams.segments import Segment
from acclimate.streams.shared import require

__all__ = ["IMAGE_LISTS", "imagenet_c"]

IMAGE_LISTS = ("images.txt", "imagenet_test_image_ids.txt")
"""Files of the folder that say which images are taken, the first one that is there; the second is RobustBench's."""

_SIDE = 224
_HASHED = 64


class _CorruptedFiles(LazyImages):
    """The files of all segments in a row: the same names in the folder of each."""

    ahead = 2

    def __init__(self, folders: list[Path], names: list[str]) -> None:
        require("PIL.Image", "Reading image files")
        self._folders, self._names = folders, names

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._folders) * len(self._names), 3, _SIDE, _SIDE

    def _paths(self, index: Tensor) -> list[Path]:
        places = (divmod(i, len(self._names)) for i in index.tolist())
        return [self._folders[folder] / self._names[name] for folder, name in places]

    def read(self, index: Tensor) -> Tensor:
        return torch.stack(in_threads(_decode, self._paths(index)))

    def source(self, index: Tensor) -> Iterator[bytes]:
        for part in index.split(_HASHED):
            yield from in_threads(_bytes, self._paths(part))


def _absent(path: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"There is no image {path}, but other corruptions or the list name it; all corruptions of ImageNet-C hold the "
        "same images. Unpack the archive again."
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _absent(path) from error


def _decode(path: Path) -> Tensor:
    try:
        image = rgb(path)
    except FileNotFoundError as error:
        raise _absent(path) from error
    if image.size != (_SIDE, _SIDE):
        wide, high = image.size
        raise ValueError(
            f"{path} is {wide}x{high}; expected {_SIDE}x{_SIDE}, as ImageNet-C is published. Other images are streamed "
            "by folder:DIR, which resizes them."
        )
    return pixels(image)


def _segments(root: Path) -> dict[Segment, Path]:
    """The folders that are there, of the archives unpacked side by side or each in a folder of its own."""
    found: dict[Segment, Path] = {}
    groups = ("", "noise", "blur", "weather", "digital", "extra")
    for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS):
        place = next((root / group / name for group in groups if (root / group / name).is_dir()), None)
        for severity in range(1, 6):
            if place is not None and (place / str(severity)).is_dir():
                found[Segment(name, severity)] = place / str(severity)
    return found


def _all_names(folder: Path, classes: list[str]) -> list[str]:
    def of_class(name: str) -> list[str]:
        return [f"{name}/{path.name}" for path in sorted((folder / name).iterdir()) if is_image(path.name)]

    return [name for names in in_threads(of_class, classes) for name in names]


def _listed_names(path: Path, classes: list[str]) -> list[str]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    names = ["/".join(PurePosixPath(line).parts[-2:]) for line in lines if line]
    known = set(classes)
    for name in names:
        if name.partition("/")[0] not in known or not is_image(name.rpartition("/")[2]):
            raise ValueError(
                f"{path} lists {name!r}, which is in none of the {len(classes)} class folders; expected a line for "
                "each image, such as n01440764/ILSVRC2012_val_00000293.JPEG."
            )
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{path} lists {len(names)} images, {len(set(names))} of them different; expected each once.")
    return names


def imagenet_c(folder: Path) -> Dataset:
    """ImageNet-C from its published folders; images are decoded when a batch needs them.

    `<corruption>/<severity>/<class>/<image>.JPEG` of 224x224 pixels, taken as they are. The number of a class is the
    place of its folder in sorted order. Which images: those that `images.txt` or `imagenet_test_image_ids.txt` in
    the folder lists, by lines such as `n01440764/ILSVRC2012_val_00000293.JPEG`; all of them where there is no list.
    Corruptions and severities that are not there can be left out of a stream.

    Raises:
        ImportError: pillow is not installed.
        FileNotFoundError: no folder, none of the corruptions, or no images.
        ValueError: a list that does not fit the folders; while reading, a damaged image or one of another size.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; expected the unpacked ImageNet-C.")
    segments = _segments(folder)
    if not segments:
        raise FileNotFoundError(
            f"{folder} holds none of the corruptions of ImageNet-C; expected folders such as "
            "gaussian_noise/5/n01440764 with .JPEG files. Unpack the archives (noise.tar, blur.tar, ...) there."
        )
    first = next(iter(segments.values()))
    classes = sorted(path.name for path in first.iterdir() if path.is_dir() and not path.name.startswith("."))
    listed = next((folder / name for name in IMAGE_LISTS if (folder / name).is_file()), None)
    names = _all_names(first, classes) if listed is None else _listed_names(listed, classes)
    if not names:
        raise FileNotFoundError(f"{first} has {len(classes)} class folders and no images in them; unpack it again.")
    numbers = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([numbers[name.partition("/")[0]] for name in names])
    blocks = {segment: position * len(names) for position, segment in enumerate(segments)}
    images = _CorruptedFiles(list(segments.values()), names)
    return Dataset("imagenetc", images, labels.repeat(len(blocks)), tuple(classes), "test", blocks)
