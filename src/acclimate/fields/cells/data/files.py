"""The image files of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acclimate.fields.cells.data.problems import NothingRead, Problem, Severity
from acclimate.streams.image_files import SUFFIXES, is_image

__all__ = ["images_below", "opened_folder", "without_masks"]

_MASKS = frozenset({"mask", "masks"})


def images_below(root: Path, without: Sequence[Path] = ()) -> list[Path]:
    """All image files below a folder, by their suffix, sorted; hidden files and folders are left out.

    Arguments:
        root: the folder.
        without: folders below it that are left out.
    """
    left_out = [path.expanduser().resolve() for path in without]
    found = [
        path
        for path in sorted(root.rglob("*"))
        if is_image(path.name) and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    return [path for path in found if not any(path.resolve().is_relative_to(folder) for folder in left_out)]


def opened_folder(folder: str | Path, without: Sequence[Path] = ()) -> tuple[Path, list[Path]]:
    """A folder and the image files below it; see `images_below`.

    Raises:
        FileNotFoundError: no such folder.
        NothingRead: no image files in it, a ValueError.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}; expected one with pictures of cells.")
    found = images_below(root, without)
    if not found:
        raise NothingRead(
            f"There are no images below {root}; expected files with one of the suffixes {' '.join(sorted(SUFFIXES))}.",
            [Problem(root.resolve().name, "has no images in it; left out", Severity.FOLDER)],
        )
    return root, found


def without_masks(root: Path, paths: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """Files that are in no folder called `mask` or `masks` below `root`, and such folders as problems."""
    kept: list[Path] = []
    named: dict[str, None] = {}
    for path in paths:
        parts = path.relative_to(root).parts[:-1]
        depth = next((i for i, part in enumerate(parts, 1) if part.casefold() in _MASKS), 0)
        if depth:
            named["/".join(parts[:depth])] = None
        else:
            kept.append(path)
    told = "is taken for a folder of masks by its name, not of pictures; left out"
    return kept, [Problem(name, told, Severity.FOLDER) for name in named]
