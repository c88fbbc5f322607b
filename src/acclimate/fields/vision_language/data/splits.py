"""Which images are of which split, by a file beside them: the JSON of CoOp, or FGVC Aircraft's own lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from acclimate.fields.vision_language.data.images import LabelledImages
from acclimate.fields.vision_language.reading import read_json, read_text
from acclimate.fields.vision_language.texts.names import different, plain

__all__ = ["SPLITS", "listed_images", "split_file"]

SPLITS = ("train", "val", "test")


def split_file(
    path: str | Path, images: str | Path | None = None, split: str = "test", *, name: str | None = None
) -> LabelledImages:
    """Images of one split of a file such as `split_zhou_OxfordPets.json`.

    The file has lists of `[path, label, class name]` under "train", "val" and "test", of which some may be missing; the
    classes are those of all lists together, so that a split without one of them keeps its labels.

    Arguments:
        path: the file.
        images: the folder that its paths are relative to; the one that it lies in by default.
        split: which list.
        name: of the data set; the file's by default.

    Raises FileNotFoundError for no such file, ValueError for another form, labels that do not count from 0, a label
    with two names or a name with two labels. Images are looked for when a batch needs them.
    """
    path = Path(path).expanduser()
    root = path.parent if images is None else Path(images).expanduser()
    rows = _rows(path)
    if not rows.get(split):
        told = ", ".join(f"{key} ({len(listed)})" for key, listed in rows.items()) or "nothing"
        raise ValueError(f"{path} lists no images for {split!r}, it lists {told}. Choose one of these.")
    classes = _classes(path, [row for listed in rows.values() for row in listed])
    chosen = rows[split]
    paths = tuple(root / place for place, _, _ in chosen)
    labels = torch.tensor([label for _, label, _ in chosen])
    return LabelledImages(name or path.stem, classes, paths, labels, root)


def _rows(path: Path) -> dict[str, list[tuple[str, int, str]]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no split file {path}. Fetch it, and lay it beside the folder of images.")
    whole: Any = read_json(path)
    if not isinstance(whole, Mapping):
        raise ValueError(f'{path} holds a {type(whole).__name__}, expected {{"train": [...], "test": [...]}}.')
    found: dict[str, list[tuple[str, int, str]]] = {}
    for split in SPLITS:
        listed = whole.get(split, [])
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise ValueError(f"{path} holds {type(listed).__name__} under {split!r}, expected a list.")
        if listed:
            found[split] = [_row(path, split, place, row) for place, row in enumerate(listed)]
    return found


def _row(path: Path, split: str, place: int, row: Any) -> tuple[str, int, str]:
    whole = isinstance(row, Sequence) and len(row) == 3
    if not whole or not isinstance(row[0], str) or type(row[1]) is not int or not isinstance(row[2], str):
        raise ValueError(
            f"entry {place} of {split!r} in {path} is {row!r}, expected [path, label, class name] such as "
            '["cat/1.jpg", 0, "cat"].'
        )
    inside = PurePosixPath(row[0])
    if inside.is_absolute() or ".." in inside.parts:
        raise ValueError(
            f"entry {place} of {split!r} in {path} leads to {row[0]!r}, expected a path inside the folder of images. "
            "Write it relative to that folder."
        )
    return row[0], row[1], plain(row[2])


def _classes(path: Path, rows: Sequence[tuple[str, int, str]]) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for _, label, name in rows:
        if names.setdefault(label, name) != name:
            raise ValueError(f"{path} calls label {label} both {names[label]!r} and {name!r}. Give it one name.")
    if sorted(names) != list(range(len(names))):
        absent = next(label for label in range(len(names)) if label not in names)
        raise ValueError(
            f"{path} has {len(names)} labels from {min(names)} to {max(names)}, and none of them is {absent}, expected "
            "each from 0 on. Number them anew."
        )
    classes = tuple(names[label] for label in range(len(names)))
    different(classes, path)
    return classes


def listed_images(folder: str | Path, split: str = "test", *, name: str = "aircraft") -> LabelledImages:
    """Images of one split of FGVC Aircraft as published: `variants.txt` with a class in each line, and
    `images_variant_test.txt` with lines such as `0034309 707-320` for `images/0034309.jpg`.

    Raises FileNotFoundError for a list that is not there, ValueError for a class that is not among the variants, or
    stands there twice.
    """
    root = Path(folder).expanduser()
    lists = root / "variants.txt", root / f"images_variant_{split}.txt"
    for path in lists:
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}, expected the folder 'data' of FGVC Aircraft's archive.")
    variants, lines = ([line.strip() for line in read_text(path).splitlines() if line.strip()] for path in lists)
    different(tuple(map(plain, variants)), lists[0])
    numbers = {variant: number for number, variant in enumerate(variants)}
    paths: list[Path] = []
    labels: list[int] = []
    for line in lines:
        image, _, variant = line.partition(" ")
        if variant not in numbers:
            raise ValueError(f"{lists[1]} has a line {line!r}, whose class is none of the {len(variants)} variants.")
        paths.append(root / "images" / f"{image}.jpg")
        labels.append(numbers[variant])
    return LabelledImages(name, tuple(map(plain, variants)), tuple(paths), torch.tensor(labels), root)
