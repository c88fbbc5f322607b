"""Which labelled cells are kept back, and what they are kept for: honest probabilities and an honest "unsure"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from acclimate.fields.cells.classify.arrays import Array
from acclimate.fields.cells.classify.unsure import Temperature, Threshold, calibrate
from acclimate.fields.cells.data.laboratory import UNKNOWN

__all__ = ["SHARE", "Calibration", "calibrated", "easier", "held_out", "once", "promise"]

SHARE = 5
"""One of so many labelled pictures of each class is held out."""

_EASIER = (0.1, 0.15, 0.2, 0.25, 0.3)


class Calibration(NamedTuple):
    """A temperature, and the threshold below which a cell is unsure."""

    temperature: Temperature
    threshold: Threshold


def held_out(labels: Tensor, seed: int, *, origins: Tensor | None = None, words: Sequence[str] | None = None) -> Tensor:
    """Which cells are held out: a fifth of each class, rounded down, drawn by the seed; int64 `[N]` to bool `[N]`.

    Of each laboratory about a fifth of its cells of a class is drawn. Cells of unknown class never are, nor is any of a
    class of fewer than five. Copies of a picture are one, of the class of the first: all of them are held out, or none.

    Arguments:
        labels: of all cells.
        seed: of a private generator.
        origins: the number of each cell's laboratory, int64 `[N]`.
        words: a word for each cell, the same for the same picture, such as its digest.

    >>> held_out(torch.tensor([0] * 10 + [1] * 4), seed=0).sum()
    tensor(2)
    """
    generator = Generator().manual_seed(seed)
    picture = torch.arange(len(labels)) if words is None else _numbered(words)
    known = labels != UNKNOWN
    drawn = _firsts(picture, known)
    drawn = drawn[torch.randperm(len(drawn), generator=generator)]
    if origins is not None:
        drawn = drawn[origins[drawn].argsort(stable=True)]
    chosen = [drawn[labels[drawn] == label][SHARE - 1 :: SHARE] for label in labels[drawn].unique()]
    held = torch.isin(picture, picture[torch.cat(chosen)]) if chosen else torch.zeros_like(known)
    return held & known


def once(which: Tensor, words: Sequence[str]) -> Tensor:
    """The first copy of each picture among cells, bool `[N]` to bool `[N]`: copies are no further evidence."""
    found = torch.zeros_like(which)
    found[_firsts(_numbered(words), which)] = True
    return found


def _numbered(words: Sequence[str]) -> Tensor:
    return torch.from_numpy(np.unique(np.array(words), return_inverse=True)[1].reshape(-1).astype(np.int64))


def _firsts(picture: Tensor, which: Tensor) -> Tensor:
    """Where each picture is first met among the chosen cells, in order: int64."""
    places = which.nonzero()[:, 0]
    return places[torch.from_numpy(np.sort(np.unique(picture[places].numpy(), return_index=True)[1]))]


def calibrated(probabilities: Array, labels: Array, error: float, laboratories: Sequence[str]) -> Calibration:
    """From what the classifier says of held-out cells, float `[N, C]`.

    Among sure answers, `error` may be wrong in each of the laboratories that the cells come from, `[N]` names.
    """
    temperature = Temperature.fit(probabilities, labels)
    scaled = temperature.apply(probabilities)
    return Calibration(temperature, calibrate(scaled, labels, error=error, laboratories=laboratories))


def promise(threshold: Threshold, never: Sequence[str] = ()) -> str:
    """What the threshold promises, in words, and what it does not reach: `never`, classes without held-out cells.

    >>> from acclimate.fields.cells.classify.unsure import Part
    >>> parts = (Part("berlin", 200, 150, 1, 0.04, True), Part("quito", 20, 9, 0, 0.5, False))
    >>> told = promise(Threshold(0.9, 0.05, 0.95, 220, 159, 1, 0.04, parts), ["basophil"])
    >>> told.partition(", with")[0]
    'Below a probability of 0.900 a cell is unsure: then at most 5% of the sure answers are wrong in berlin'
    >>> told.partition("Nothing is promised for cells of ")[2]
    'quito, with 20 of the 117 held-out cells that it takes, and of basophil, of which no cell was held out.'
    """
    covered = [part for part in threshold.parts if part.covered]
    told = f"at most {threshold.error:.0%} of the sure answers are wrong"
    sure = f"with {threshold.confidence:.0%} confidence"
    if not covered:
        found = _listed([f"{part.name} {part.cells}" for part in threshold.parts])
        return (
            f"Every cell is called unsure: that {told}, {sure}, takes {threshold.needed} held-out cells of a "
            f"laboratory, and there are of {found}. Label more cells, a fifth of which is held out, or train with a "
            "larger --error."
        )
    named = _listed([part.name for part in covered])
    if threshold.value is None:
        cells = ", ".join(f"{part.name} {part.cells}" for part in covered)
        return (
            f"Every cell is called unsure: it cannot be promised that {told} in {named}, {sure}, since too many "
            f"answers on held-out cells were wrong ({cells} cells). Label more cells, or train with a larger --error."
        )
    counts = "; ".join(
        f"{part.name}: {part.kept} of {part.cells} held-out cells sure, {part.wrong} of them wrong" for part in covered
    )
    where = f"in {named}" if len(covered) == 1 else f"in each of {named}"
    return (
        f"Below a probability of {threshold.value:.3f} a cell is unsure: then {told} {where}, {sure} ({counts})."
        f"{_beyond(threshold, never)}"
    )


def _beyond(threshold: Threshold, never: Sequence[str]) -> str:
    few = [
        f"{part.name}, with {part.cells} of the {threshold.needed} held-out cells that it takes"
        for part in threshold.parts
        if not part.covered
    ]
    rare = [f"{_listed(never)}, of which no cell was held out"] if never else []
    return f" Nothing is promised for cells of {', and of '.join([*few, *rare])}." if few or rare else ""


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "none"


def easier(
    calibration: Calibration, probabilities: Array, labels: Array, laboratories: Sequence[str]
) -> Mapping[float, Threshold]:
    """Larger errors than the one asked for, and the threshold that each gives: those that any threshold keeps."""
    scaled = calibration.temperature.apply(probabilities)
    tried = {
        error: calibrate(scaled, labels, error=error, laboratories=laboratories)
        for error in _EASIER
        if error > calibration.threshold.error
    }
    return {error: found for error, found in tried.items() if found.value is not None}
