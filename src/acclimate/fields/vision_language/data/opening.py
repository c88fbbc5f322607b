"""A data set of the catalogue, from wherever it lies in a folder of data sets."""

from __future__ import annotations

from pathlib import Path

from acclimate.fields.vision_language.data.catalogue import DATASETS, Facts
from acclimate.fields.vision_language.data.folders import class_folders
from acclimate.fields.vision_language.data.images import LabelledImages
from acclimate.fields.vision_language.data.names import NAME_FILES, find_names, read_names
from acclimate.fields.vision_language.data.splits import listed_images, split_file
from acclimate.streams.segments import suggest

__all__ = ["facts_of", "find_folder", "open_images"]


def facts_of(name: str) -> Facts:
    """What is known of a data set. ValueError for one that is not in the catalogue."""
    if name not in DATASETS:
        raise ValueError(f"there is no data set {name!r} in the catalogue. {suggest(name, tuple(DATASETS))}")
    return DATASETS[name]


def find_folder(name: str, folder: str | Path) -> Path | None:
    """The data set's own folder in a folder of data sets; None where there is none."""
    root = Path(folder).expanduser()
    return next((root / each for each in facts_of(name).folders if (root / each).is_dir()), None)


def open_images(name: str, folder: str | Path, split: str = "test") -> LabelledImages:
    """The images of a data set of `DATASETS`, in the layout that CoOp's and TDA's instructions lead to.

    `<folder>/<data set>/split_zhou_*.json` beside a folder of images; for Aircraft, the lists of its archive if there
    is no such file; for ImageNet and its variants a folder for each class, and class names in `classnames.txt`,
    `classnames.json` or `imagenet_class_index.json`, in the data set's folder, in that of ImageNet or in `folder`.
    Sizes other than the published ones are taken as they are.

    Arguments:
        folder: where the data sets lie side by side.
        split: "test", or "train" and "val" of those that have a split file.

    Raises FileNotFoundError where it is not there, ValueError for files of another form; see `split_file` and
    `class_folders`.
    """
    facts, root, found = facts_of(name), Path(folder).expanduser(), find_folder(name, folder)
    if found is None:
        raise FileNotFoundError(
            f"there is no {facts.title} in {root}, expected a folder {' or '.join(map(repr, facts.folders))}."
        )
    images = next(found / inside for inside in facts.images if (found / inside).is_dir())
    if facts.split is not None:
        if not (found / facts.split).is_file() and (found / "variants.txt").is_file():
            return listed_images(found, split, name=name)
        return split_file(found / facts.split, images, split, name=name)
    if split != "test":
        raise ValueError(f"{facts.title} is read for testing, found split {split!r}. Name the folder to class_folders.")
    names = find_names(found, images, *(root / each for each in DATASETS["imagenet"].folders), root)
    if names is None:
        raise FileNotFoundError(
            f"there are no class names for {facts.title}, expected {' or '.join(NAME_FILES)} in {found}. Write lines "
            "such as 'n01440764 tench' into the first."
        )
    return class_folders(images, read_names(names), numbered=facts.numbered, name=name)
