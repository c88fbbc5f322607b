"""From what is named at the desk, folders or the shared set, to laboratories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from acclimate.core.config import one_of
from acclimate.fields.cells.data.files import opened_folder
from acclimate.fields.cells.data.gathering import Found, gathered
from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory, Problem
from acclimate.fields.cells.data.layouts import class_folders, loose
from acclimate.fields.cells.data.wbc import LABORATORIES, laboratories
from acclimate.fields.cells.pipeline import Stage

__all__ = ["SHARED", "asked", "counted", "relabelled", "teaching"]

SHARED = "wbc"
"""Stands for the four shared laboratories in place of a folder; `wbc:NAME` for one of them."""


def teaching(
    names: Sequence[str], masks: str | Path | None = None, *, size: int, progress: Stage | None = None
) -> list[Laboratory]:
    """Laboratories to learn from.

    Arguments:
        names: folders, each of them one laboratory: `<class>/<image>`, or images alone, which are of unknown class; or
            `wbc`, or `wbc:NAME`.
        masks: a folder with the masks of each laboratory in a folder of its name; where there is one laboratory, its
            masks may lie there themselves.
        size: pixels of a side.
        progress: told what is read, how many files are done, and of how many.

    Raises FileNotFoundError for folders that are missing; ValueError for one without images, two laboratories of one
    name, and an unknown one of the shared set.
    """
    top = None if masks is None else Path(masks).expanduser()
    if top is not None and not top.is_dir():
        raise FileNotFoundError(f"There is no folder {top} of masks; expected one with a mask for each picture.")
    found: list[Laboratory] = []
    for name in names:
        found += _shared(name, size) or [_taught(Path(name).expanduser(), top, len(names) == 1, size, progress)]
    return _apart(found)


def asked(
    names: Sequence[str],
    classes: tuple[str, ...],
    *,
    size: int,
    without: Sequence[str] = (),
    progress: Stage | None = None,
) -> list[Laboratory]:
    """Laboratories to answer for: every image below each folder, whatever its layout.

    The class of a picture is known where the first folder of its path has the name of a class. Arguments and errors are
    those of `teaching`; `classes` are those of the model, `without` are folders that are left out.
    """
    found: list[Laboratory] = []
    for name in names:
        shared = [relabelled(each, classes) for each in _shared(name, size)]
        found += shared or [
            _unsorted(Path(name).expanduser(), classes, [Path(each) for each in without], size, progress)
        ]
    return _apart(found)


def relabelled(laboratory: Laboratory, classes: tuple[str, ...]) -> Laboratory:
    """The same cells with labels that count in `classes`; those of other classes become unknown."""
    places = [classes.index(name) if name in classes else UNKNOWN for name in laboratory.classes]
    table = torch.tensor([*places, UNKNOWN])  # the last is for UNKNOWN
    return replace(laboratory, labels=table[laboratory.labels], classes=classes)


def counted(what: str, progress: Stage | None) -> Callable[[int, int], None] | None:
    """Progress that counts, under a name."""
    return None if progress is None else lambda done, total: progress(what, done, total)


def _shared(name: str, size: int) -> list[Laboratory]:
    first, _, which = name.partition(":")
    if first != SHARED:
        return []
    if which:
        one_of(*LABORATORIES, **{SHARED: which})
    return [each for key, each in laboratories(size).items() if which in ("", key)]


def _taught(folder: Path, masks: Path | None, alone: bool, size: int, progress: Stage | None) -> Laboratory:
    name = folder.resolve().name
    tell = counted(f"reading {name}", progress)
    own = None if masks is None else masks / name
    if own is not None and not own.is_dir():
        own = masks if alone else None
    root, paths = opened_folder(folder, without=[] if own is None else [own])
    if any(path.parent != root for path in paths):
        return class_folders(folder, own, size=size, progress=tell)
    found = loose(folder, size=size, progress=tell)
    if own is None:
        return found
    unread = Problem(name, "has masks but no class folders, which they are read for; taken as unknown")
    return replace(found, problems=(*found.problems, unread))


def _unsorted(
    folder: Path, classes: tuple[str, ...], without: Sequence[Path], size: int, progress: Stage | None
) -> Laboratory:
    root, paths = opened_folder(folder, without)
    keys = [path.relative_to(root).as_posix() for path in paths]
    firsts = [key.partition("/")[0] if "/" in key else "" for key in keys]
    labels = [classes.index(first) if first in classes else UNKNOWN for first in firsts]
    files = [Found(*each) for each in zip(keys, paths, labels, strict=True)]
    odd = sorted({first for first in firsts if first and first not in classes}) if max(labels) > UNKNOWN else []
    problems = [Problem(name, "is a folder of no class of the model; its pictures count as unknown") for name in odd]
    name = root.resolve().name
    return gathered(name, files, classes, size=size, problems=problems, progress=counted(f"reading {name}", progress))


def _apart(found: list[Laboratory]) -> list[Laboratory]:
    for name, times in Counter(each.name for each in found).items():
        if times > 1:
            raise ValueError(f"{times} laboratories are called {name!r}; expected different names. Rename a folder.")
    return found
