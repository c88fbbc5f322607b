"""Images in one folder for each class, as ImageNet and its variants are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from acclimate.fields.vision_language.data.images import LabelledImages
from acclimate.fields.vision_language.texts.names import different, plain
from acclimate.streams.image_files import SUFFIXES, in_threads, is_image

__all__ = ["class_folders"]

_MOST = 100_000
"""Classes: what is beyond is a date or the like."""


def class_folders(
    folder: str | Path, names: Mapping[str, str] | None = None, *, numbered: bool = False, name: str = "folder"
) -> LabelledImages:
    """`<folder>/<class>/<image>`: classes are the folders that are there, in sorted order.

    So a subset of ImageNet's folders, such as the 200 of ImageNet-A, gives a problem of so many classes.

    Arguments:
        folder: the folder of class folders.
        names: of the classes by folder, as `read_names` gives them; by default folders are called what they are.
        numbered: folders are named `0`, `1`, ... by the label, as in ImageNet-V2; sorted as strings, `10` would come
            before `2`. Then all of `names` are classes, in their order, or all numbers up to the largest.
        name: of the data set.

    Raises FileNotFoundError for no such folder or no images in it, ValueError for a folder that has no name
    or, without `names`, the same as another.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}, expected one with a folder for each class.")
    found = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    labels, classes = _numbers(root, found, names) if numbered else _sorted(root, found, names)
    files = in_threads(lambda each: sorted(path for path in (root / each).iterdir() if is_image(path.name)), found)
    paths = [path for of_class in files for path in of_class]
    if not paths:
        raise FileNotFoundError(
            f"{root} has {len(found)} folders and no images in them, expected <class>/<image> with one of the suffixes "
            f"{' '.join(sorted(SUFFIXES))}."
        )
    counted = [label for label, of_class in zip(labels, files, strict=True) for _ in of_class]
    return LabelledImages(name, classes, tuple(paths), torch.tensor(counted), root)


def _sorted(root: Path, found: list[str], names: Mapping[str, str] | None) -> tuple[list[int], tuple[str, ...]]:
    unknown = [each for each in found if names is not None and each not in names]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of the {len(found)} folders in {root} have no class name, such as {unknown[0]!r}. Add "
            f"lines such as '{unknown[0]} its name' to the file of names, or take the folder out."
        )
    if names is None:
        names = {each: plain(each) for each in found}
        different(list(names.values()), root)
    return list(range(len(found))), tuple(names[each] for each in found)


def _numbers(root: Path, found: list[str], names: Mapping[str, str] | None) -> tuple[list[int], tuple[str, ...]]:
    odd = [each for each in found if not (each.isascii() and each.isdecimal())]
    if odd:
        raise ValueError(f"{root} holds a folder {odd[0]!r}, expected numbers of classes: 0, 1, ... Take it out.")
    labels = [int(each) for each in found]
    if max(labels, default=0) >= _MOST:
        raise ValueError(f"{root} holds a folder {max(labels)}, expected numbers of classes, below {_MOST:,}.")
    classes = tuple(names.values()) if names is not None else tuple(map(str, range(max(labels, default=-1) + 1)))
    if len(set(labels)) != len(labels) or max(labels, default=0) >= max(1, len(classes)):
        raise ValueError(
            f"the folders in {root} count up to {max(labels)}, {len(set(labels))} of {len(labels)} different, expected "
            f"each number below {len(classes)} at most once: so many classes are named."
        )
    return labels, classes
