"""Many image files, decoded and brought to one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core import config
from acclimate.fields.cells.data.crops import whole
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.data.masks import read_mask
from acclimate.fields.cells.data.problems import NothingRead, Problem, Severity
from acclimate.fields.cells.data.reading import read
from acclimate.streams.image_files import in_threads
from acclimate.streams.scenes import VOID

__all__ = ["Found", "Progress", "gathered"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many files are done and how many there are."""

_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Found:
    """A file to be read: what it is called, where it is, its label, and its mask's file."""

    key: str
    path: Path
    label: int
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    image: NDArray[np.uint8] | None
    mask: NDArray[np.uint8] | None
    problems: tuple[Problem, ...]


def _one(found: Found, size: int) -> _Read:
    reading = read(found.path)
    if reading.pixels is None:
        return _Read(None, None, (Problem(found.key, f"{reading.what}; left out", Severity.LEFT_OUT),))
    problems = [Problem(found.key, reading.what)] if reading.what else []
    mask = None
    if found.mask is not None:
        mask, what = read_mask(found.mask, reading.pixels.shape[:2])
        problems += [Problem(found.key, f"{what}; taken as unknown", Severity.DOUBTFUL)] if what else []
    fitted = None if mask is None else whole(mask, size)
    return _Read(whole(reading.pixels, size), fitted, tuple(problems))


def gathered(
    name: str,
    files: Sequence[Found],
    classes: tuple[str, ...],
    *,
    size: int,
    masks: bool = False,
    problems: Sequence[Problem] = (),
    progress: Progress | None = None,
) -> Laboratory:
    """The files as a laboratory; those that cannot be read are left out and named in its `problems`.

    Arguments:
        name: of the laboratory.
        files: what to read.
        classes: names, in the order of labels.
        size: pixels of a side, 8 or more.
        masks: whether the laboratory has masks.
        problems: what is known to be wrong already.
        progress: told how many files are done and how many there are.

    Raises:
        NothingRead: nothing can be read.
        ValueError: an impossible size.
        ImportError: pillow is not installed.
    """
    config.whole(8, size=size)
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    maps = torch.full((len(files), size, size), VOID, dtype=torch.int8) if masks else None
    kept: list[int] = []
    named = list(problems)
    for start in range(0, len(files), _CHUNK):
        part = files[start : start + _CHUNK]
        for place, done in enumerate(in_threads(lambda found: _one(found, size), part), start):
            named += done.problems
            if done.image is not None:
                images[len(kept)] = torch.from_numpy(done.image).permute(2, 0, 1)
                _put(maps, len(kept), done.mask)
                kept.append(place)
        if progress is not None:
            progress(start + len(part), len(files))
    if not kept:
        raise NothingRead(f"Nothing in {name!r} can be read: {_examples(named)}. Replace the files.", named)
    return Laboratory(
        name,
        images[: len(kept)],
        torch.tensor([files[place].label for place in kept]),
        classes,
        tuple(files[place].key for place in kept),
        None if maps is None else maps[: len(kept)],
        tuple(named),
    )


def _put(maps: Tensor | None, place: int, mask: NDArray[np.uint8] | None) -> None:
    if maps is not None and mask is not None:
        maps[place] = torch.from_numpy(mask)


def _examples(problems: Sequence[Problem]) -> str:
    gravest = sorted(problems, key=lambda problem: problem.severity)[:3]
    first = "; ".join(f"{problem.key} {problem.what}" for problem in gravest)
    return f"{first} and {len(problems) - 3} more" if len(problems) > 3 else first or "there are no files"
