"""Which labelled cells are kept back, and what they are kept for: honest probabilities and an honest "unsure"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from acclimate.fields.cells.classify.arrays import Array
from acclimate.fields.cells.classify.unsure import Temperature, Threshold, calibrate
from acclimate.fields.cells.data.laboratory import UNKNOWN

__all__ = ["SHARE", "Calibration", "calibrated", "easier", "held_out", "promise"]

SHARE = 5
"""One of so many labelled cells of each class is held out."""

_EASIER = (0.1, 0.15, 0.2, 0.25, 0.3)


class Calibration(NamedTuple):
    """A temperature, and the threshold below which a cell is unsure."""

    temperature: Temperature
    threshold: Threshold


def held_out(labels: Tensor, seed: int) -> Tensor:
    """Which cells are held out: a fifth of each class, rounded down, drawn by the seed; int64 `[N]` to bool `[N]`.

    Cells of unknown class never are, nor is any of a class of fewer than five.

    >>> held_out(torch.tensor([0] * 10 + [1] * 4), seed=0).sum()
    tensor(2)
    """
    generator = Generator().manual_seed(seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        own = (labels == label).nonzero()[:, 0]
        drawn = own[torch.randperm(len(own), generator=generator)]
        if label != UNKNOWN:
            held[drawn[: len(own) // SHARE]] = True
    return held


def calibrated(probabilities: Array, labels: Array, error: float) -> Calibration:
    """From what the classifier says of held-out cells, float `[N, C]`; among sure answers, `error` may be wrong."""
    temperature = Temperature.fit(probabilities, labels)
    return Calibration(temperature, calibrate(temperature.apply(probabilities), labels, error=error))


def promise(threshold: Threshold) -> str:
    """What the threshold promises, in words.

    >>> promise(Threshold(0.9, 0.05, 0.95, 200, 150, 1, 0.04)).partition(":")[0]
    'Below a probability of 0.900 a cell is unsure'
    """
    told = f"at most {threshold.error:.0%} of the sure answers are wrong, with {threshold.confidence:.0%} confidence"
    if threshold.value is None:
        return (
            f"Every cell is called unsure: with {threshold.cells} held-out cells it cannot be promised that {told}. "
            "Label more cells, or train with a larger --error."
        )
    return (
        f"Below a probability of {threshold.value:.3f} a cell is unsure: then {told}, in the laboratories it was "
        f"trained on ({threshold.kept} of {threshold.cells} held-out cells were sure, {threshold.wrong} of them wrong)."
    )


def easier(calibration: Calibration, probabilities: Array, labels: Array) -> Mapping[float, Threshold]:
    """Larger errors than the one asked for, and the threshold that each gives: those that any threshold keeps."""
    scaled = calibration.temperature.apply(probabilities)
    tried = {error: calibrate(scaled, labels, error=error) for error in _EASIER if error > calibration.threshold.error}
    return {error: found for error, found in tried.items() if found.value is not None}
