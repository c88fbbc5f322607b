"""From what is named at the desk, folders or the shared set, to laboratories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from acclimate.core.config import one_of
from acclimate.fields.cells.data.classes import plain
from acclimate.fields.cells.data.files import opened_folder, without_masks
from acclimate.fields.cells.data.gathering import Found, gathered
from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.data.layouts import class_folders, loose
from acclimate.fields.cells.data.problems import NothingRead, Problem, Severity
from acclimate.fields.cells.data.wbc import LABORATORIES, laboratories
from acclimate.fields.cells.desk.naming import relabelled
from acclimate.fields.cells.desk.problems import Failed
from acclimate.fields.cells.pipeline import Stage
from acclimate.streams.shared import shared_folder

__all__ = ["SHARED", "Opened", "asked", "counted", "teaching"]

SHARED = "wbc"
"""Stands for the four shared laboratories in place of a folder; `wbc:NAME` for one of them."""


class Opened(NamedTuple):
    """What could be read, and the folders of which nothing could."""

    laboratories: list[Laboratory]
    failed: tuple[Failed, ...]

    def check(self) -> None:
        """ValueError where nothing at all could be read."""
        if not self.laboratories:
            raise ValueError(" ".join(each.why for each in self.failed))


def teaching(
    names: Sequence[str],
    masks: str | Path | None = None,
    *,
    size: int,
    without: Sequence[str] = (),
    progress: Stage | None = None,
) -> Opened:
    """Laboratories to learn from. A folder of which nothing can be read is named in what is returned.

    Arguments:
        names: folders, each of them one laboratory: `<class>/<image>`, or images alone, which are of unknown class; or
            `wbc`, or `wbc:NAME`.
        masks: a folder with the masks of each laboratory in a folder of its name; where there is one laboratory, its
            masks may lie there themselves. It is no laboratory's class, wherever it lies.
        size: pixels of a side.
        without: folders that are left out.
        progress: told what is read, how many files are done, and of how many.

    Raises FileNotFoundError for folders that are missing; ValueError for folders within class folders, nothing that can
    be read, two laboratories of one name, and an unknown one of the shared set.
    """
    top = None if masks is None else Path(masks).expanduser()
    if top is not None and not top.is_dir():
        raise FileNotFoundError(f"There is no folder {top} of masks; expected one with a mask for each picture.")
    left_out = [Path(each) for each in without]

    def read(folder: Path) -> Laboratory:
        return _taught(folder, top, left_out, alone=len(names) == 1, size=size, progress=progress)

    found = _each(names, size, read)
    found.check()
    return found


def asked(
    names: Sequence[str],
    classes: tuple[str, ...],
    *,
    size: int,
    without: Sequence[str] = (),
    progress: Stage | None = None,
) -> Opened:
    """Laboratories to answer for: every image below each folder, whatever its layout, but those in folders of masks.

    The class of a picture is known where the first folder of its path has the name of a class. Arguments and errors are
    those of `teaching`, except that nothing may be left; `classes` are those of the model, `without` are folders that
    are left out.
    """
    left_out = [Path(each) for each in without]
    found = _each(names, size, lambda folder: _unsorted(folder, classes, left_out, size, progress))
    return found._replace(laboratories=[relabelled(each, classes) for each in found.laboratories])


def counted(what: str, progress: Stage | None) -> Callable[[int, int], None] | None:
    """Progress that counts, under a name."""
    return None if progress is None else lambda done, total: progress(what, done, total)


def _each(names: Sequence[str], size: int, read: Callable[[Path], Laboratory]) -> Opened:
    found: list[Laboratory] = []
    failed: list[Failed] = []
    for name in names:
        shared, folder = _shared(name, size), Path(name).expanduser()
        try:
            found += shared or [read(folder)]
        except NothingRead as error:
            failed.append(Failed(folder.resolve().name, str(error), error.problems))
    _check_apart([*(each.name for each in found), *(each.name for each in failed)])
    return Opened(found, tuple(failed))


def _shared(name: str, size: int) -> list[Laboratory]:
    first, _, which = name.partition(":")
    if first != SHARED:
        return []
    if which:
        one_of(*LABORATORIES, **{SHARED: which})
    try:
        return [each for key, each in laboratories(size).items() if which in ("", key)]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{name} stands for pictures that do not come with the library, and {shared_folder().absolute()} has no "
            f"archives of them in data. Set ACCLIMATE_SHARED to the folder that has, or name folders of your own "
            f"(./{SHARED} for one of that name)."
        ) from error


def _taught(
    folder: Path, masks: Path | None, without: list[Path], *, alone: bool, size: int, progress: Stage | None
) -> Laboratory:
    name = folder.resolve().name
    tell = counted(f"reading {name}", progress)
    own = None if masks is None else masks / name
    odd: list[Problem] = []
    if masks is not None and own is not None and not own.is_dir():
        own = masks if alone else None
        if own is None:
            told = f"has no folder of its name in {masks}; its masks are taken as unknown"
            odd.append(Problem(name, told, Severity.FOLDER))
    inside = masks is not None and folder.resolve() in masks.resolve().parents
    left_out = [*without, masks] if masks is not None and inside else without
    root, every = opened_folder(folder, left_out)
    if any(path.parent != root for path in without_masks(root, every)[0]):
        found = class_folders(folder, own, size=size, without=left_out, progress=tell)
    else:
        found = loose(folder, size=size, without=left_out, progress=tell)
        if own is not None:
            told = "has masks but no class folders, which they are read for; taken as unknown"
            odd.append(Problem(name, told, Severity.FOLDER))
    return replace(found, problems=(*odd, *found.problems))


def _unsorted(
    folder: Path, classes: tuple[str, ...], without: Sequence[Path], size: int, progress: Stage | None
) -> Laboratory:
    root, every = opened_folder(folder, without)
    paths, problems = without_masks(root, every)
    known = {plain(name): label for label, name in enumerate(classes)}
    keys = [path.relative_to(root).as_posix() for path in paths]
    firsts = [key.partition("/")[0] if "/" in key else "" for key in keys]
    labels = [known.get(plain(first), UNKNOWN) for first in firsts]
    files = [Found(*each) for each in zip(keys, paths, labels, strict=True)]
    if any(label != UNKNOWN for label in labels):
        odd = sorted({first for first, label in zip(firsts, labels, strict=True) if first and label == UNKNOWN})
        told = "is a folder of no class of the model; its pictures count as unknown"
        problems += [Problem(name, told, Severity.FOLDER) for name in odd]
    name = root.resolve().name
    return gathered(name, files, classes, size=size, problems=problems, progress=counted(f"reading {name}", progress))


def _check_apart(names: Sequence[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"{times} laboratories are called {name!r}; expected different names. Rename a folder.")
