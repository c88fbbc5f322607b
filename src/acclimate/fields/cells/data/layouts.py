"""Folders of cell pictures: the layouts of the two large public sets, a folder for each class, or no order at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from acclimate.fields.cells.data.classes import ACEVEDO_CODES, MATEK_CODES, UNIFIED, joined
from acclimate.fields.cells.data.files import opened_folder, without_masks
from acclimate.fields.cells.data.gathering import Found, Progress, gathered
from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.data.masks import mask_files
from acclimate.fields.cells.data.problems import Problem, Severity

__all__ = ["acevedo", "class_folders", "loose", "matek"]


def matek(folder: str | Path, *, size: int = 224, progress: Progress | None = None) -> Laboratory:
    """Matek-19: 18,365 pictures of 400x400 pixels in 15 codes, `<code>/<code>_<number>.tiff`.

    The code is what a file's name begins with, before the first underscore, or else the name of its folder. PMB is
    dropped, MOB counts as monocyte; see `classes.MATEK_CODES`. Classes are `UNIFIED`, whether or not they have cells
    here, so that labels mean the same in Acevedo-20. Pictures are resized as they are.

    Arguments:
        folder: anything above the files.
        size: pixels of a side, 8 or more.
        progress: told how many files are done and how many there are.

    Files that cannot be read, and those of an unknown code, are left out and named in `problems`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing is left, or an impossible size.
        ImportError: pillow is not installed.

    Source: C. Matek et al., Human-level recognition of blast cells in acute myeloid leukaemia with convolutional neural
    networks, Nature Machine Intelligence 2019.
    """
    return _coded("matek", folder, MATEK_CODES, size, progress)


def acevedo(folder: str | Path, *, size: int = 224, progress: Progress | None = None) -> Laboratory:
    """Acevedo-20: 17,092 pictures of about 360x363 pixels in 13 codes, `<class>/<code>_<number>.jpg`.

    IG, NEUTROPHIL and PLATELET are dropped; see `classes.ACEVEDO_CODES`. All else is as in `matek`.

    Source: A. Acevedo et al., A dataset of microscopic peripheral blood cell images for development of automatic
    recognition systems, Data in Brief 2020.
    """
    return _coded("acevedo", folder, ACEVEDO_CODES, size, progress)


def _coded(
    name: str, folder: str | Path, codes: Mapping[str, str | None], size: int, progress: Progress | None
) -> Laboratory:
    root, paths = opened_folder(folder)
    files: list[Found] = []
    problems: list[Problem] = []
    for path in paths:
        key = path.relative_to(root).as_posix()
        first, parent = path.stem.partition("_")[0].upper(), path.parent.name.upper()
        code = first if first in codes else parent
        if code not in codes:
            problems.append(
                Problem(key, f"begins with none of the codes {' '.join(codes)}; left out", Severity.LEFT_OUT)
            )
            continue
        label = codes[code]
        if label is not None:
            files.append(Found(key, path, UNIFIED.index(label)))
    return gathered(name, files, UNIFIED, size=size, problems=problems, progress=progress)


def class_folders(
    folder: str | Path,
    masks: str | Path | None = None,
    *,
    size: int = 128,
    name: str | None = None,
    without: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Laboratory:
    """`<folder>/<class>/<image>`: classes are the folders with images in them, in sorted order.

    Folders whose names differ in case, hyphens, underscores and spaces alone are one class, called like the first of
    them; folders called `mask` or `masks` hold none. Both are named in `problems`.

    Pictures show one cell each and are resized as they are. Files that are no images by their suffix, and hidden ones,
    are left out without a word; images that cannot be read or lie in no class folder are named in `problems`, and so
    are folders without images. For training see `check_classes`, too.

    Arguments:
        folder: the folder of class folders.
        masks: a folder with the mask of each picture at the same path, the suffix apart; see `masks.mask_levels` for
            what they may hold. A mask that is missing, damaged, empty, of another size than its picture, or that covers
            more than 95 % of it or 75 % of its border is named in `problems` and counts as unknown. It may lie in
            `folder`.
        size: pixels of a side, 8 or more.
        name: of the laboratory; by default that of the folder.
        without: folders below it that are left out.
        progress: told how many files are done and how many there are.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing is left, folders within class folders, or an impossible size.
        ImportError: pillow is not installed.
    """
    of_mask = {} if masks is None else mask_files(masks)
    left_out = (*without, *(() if masks is None else (Path(masks),)))
    root, every = opened_folder(folder, without=left_out)
    paths, named = without_masks(root, every)
    keys = {path.relative_to(root).as_posix(): path for path in paths}
    _check_depth(root, keys)
    first = joined(sorted({key.partition("/")[0] for key in keys if "/" in key}))
    classes = tuple(dict.fromkeys(first.values()))
    files: list[Found] = []
    problems = [*named, *_without_images(root, {*first, *(each.key for each in named)}, left_out)]
    problems += [Problem(name, f"counts as class {one}", Severity.FOLDER) for name, one in first.items() if name != one]
    for key, path in keys.items():
        if "/" not in key:
            problems.append(Problem(key, "lies in no class folder; left out", Severity.LEFT_OUT))
            continue
        mask = of_mask.get(key[: len(key) - len(path.suffix)])
        if masks is not None and mask is None:
            problems.append(Problem(key, f"has no mask in {Path(masks).name}; taken as unknown", Severity.USUAL))
        files.append(Found(key, path, classes.index(first[key.partition("/")[0]]), mask))
    where = name or root.resolve().name
    return gathered(where, files, classes, size=size, masks=masks is not None, problems=problems, progress=progress)


def _check_depth(root: Path, keys: Mapping[str, Path]) -> None:
    """ValueError for pictures deeper than in a class folder: most often the folder above laboratories was named."""
    deep = next((key for key in keys if key.count("/") > 1), None)
    if deep is None:
        return
    above = sorted({key.partition("/")[0] for key in keys if key.count("/") > 1})
    named = " ".join(str(root / name) for name in above[:3]) + (" ..." if len(above) > 3 else "")
    raise ValueError(
        f"{root} holds {deep}, expected LABORATORY/CLASS/IMAGE. If {above[0]} is a laboratory, name it in place of "
        f"{root}: {named}. If it is a class, move its pictures out of the folders in it."
    )


def _without_images(root: Path, classes: set[str], left_out: tuple[Path, ...]) -> list[Problem]:
    known = {path.expanduser().resolve() for path in left_out}
    empty = sorted(
        path.name
        for path in root.iterdir()
        if path.is_dir() and path.name not in classes and path.name[0] != "." and path.resolve() not in known
    )
    told = "is a folder without images; no class of its name"
    return [Problem(each, told, Severity.FOLDER) for each in empty]


def loose(
    folder: str | Path,
    *,
    size: int = 128,
    name: str | None = None,
    without: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Laboratory:
    """All images below a folder, of unknown class: what is to be classified.

    Arguments, errors and what is left out are those of `class_folders`; there are no classes.
    """
    root, every = opened_folder(folder, without)
    paths, named = without_masks(root, every)
    files = [Found(path.relative_to(root).as_posix(), path, UNKNOWN) for path in paths]
    return gathered(name or root.resolve().name, files, (), size=size, problems=named, progress=progress)
