"""Names of ImageNet's classes by the folder that their images are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acclimate.fields.vision_language.reading import read_json, read_text
from acclimate.fields.vision_language.texts.names import plain

__all__ = ["NAME_FILES", "find_names", "read_names"]

NAME_FILES = ("classnames.txt", "classnames.json", "imagenet_class_index.json")


def read_names(path: str | Path) -> dict[str, str]:
    """Class names by folder, in the order of labels: that of sorted folders.

    A text file has a line for each class, such as `n01440764 tench`. A JSON file has `{"n01440764": "tench", ...}`, or
    `{"0": ["n01440764", "tench"], ...}`.

    Raises FileNotFoundError for no such file, ValueError for another form, a folder that is named twice, or one that
    is not named.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there are no class names at {path}. Lines such as 'n01440764 tench' would do.")
    pairs = _of_json(path) if path.suffix.lower() == ".json" else _of_lines(path)
    found = dict(pairs)
    if not found or len(found) != len(pairs):
        raise ValueError(f"{path} names {len(pairs)} folders, {len(found)} of them different, expected each once.")
    if not all(found.values()):
        nameless = next(folder for folder in found if not found[folder])
        raise ValueError(f"{path} gives {nameless!r} no name, expected one for each folder.")
    return dict(sorted(found.items()))


def find_names(*folders: Path) -> Path | None:
    """The first file of class names that lies in one of these folders."""
    return next((path for folder in folders for name in NAME_FILES if (path := folder / name).is_file()), None)


def _of_lines(path: Path) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        folder, _, name = line.strip().partition(" ")
        if folder and not name.strip():
            raise ValueError(f"line {number} of {path} is {line!r}, expected a folder and a name: n01440764 tench.")
        if folder:
            pairs.append((folder, plain(name)))
    return pairs


def _of_json(path: Path) -> list[tuple[str, str]]:
    whole: Any = read_json(path)
    if isinstance(whole, Mapping):
        if all(isinstance(name, str) for name in whole.values()):
            return [(str(folder), plain(name)) for folder, name in whole.items()]
        if all(_is_pair(entry) for entry in whole.values()):
            return [(folder, plain(name)) for folder, name in whole.values()]
    raise ValueError(f'{path} is of another form, expected {{"n01440764": "tench", ...}}, a name for each folder.')


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, Sequence) and len(entry) == 2 and all(isinstance(part, str) for part in entry)
