"""An "unsure" flag with a promise: among the answers that are kept, few are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.cells.classify.arrays import Array, as_probabilities
from acclimate.fields.cells.classify.temperature import Temperature, plain_labels
from acclimate.streams.shared import require

__all__ = ["Temperature", "Threshold", "calibrate", "upper_bound"]

_TRIED = 10
"""Thresholds that are tried: those that keep 10, 9, ... 1 tenths of the held-out cells."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A cell is unsure if its highest probability lies below `value`.

    Attributes:
        value: the threshold; None where no threshold keeps the promise, so that every cell is unsure.
        error, confidence: what was asked for.
        cells: held-out cells that it was calibrated on.
        kept, wrong: of these, how many are kept and how many of those are wrong.
        bound: upper bound on the share of wrong answers among kept ones; 1 where every cell is unsure.
    """

    value: float | None
    error: float
    confidence: float
    cells: int
    kept: int
    wrong: int
    bound: float

    def unsure(self, probabilities: Array) -> NDArray[np.bool_]:
        """Which cells are unsure: probabilities `[N, C]` to bool `[N]`."""
        top = as_probabilities(probabilities).max(1)
        return np.ones(len(top), dtype=np.bool_) if self.value is None else top < self.value

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Threshold:
        """What `to_dict` gave; ValueError where a field is missing or unknown."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"This is no threshold: {error}. Expected what Threshold.to_dict gives.") from error


def calibrate(probabilities: Array, labels: Array, *, error: float = 0.05, confidence: float = 0.95) -> Threshold:
    """The lowest threshold that keeps the share of wrong answers among kept ones at `error` or below.

    Ten thresholds are tried, those that keep ten tenths of the held-out cells down to one tenth. Each is held to the
    exact binomial (Clopper-Pearson) upper bound at confidence `1 - (1 - confidence) / 10`, so that the promise holds
    for the one that is chosen: over repeated calibrations, at least the share `confidence` of the thresholds let no
    more than `error` wrong answers through among new cells. Without a single error this takes 104 kept cells at the
    defaults.

    The promise is for cells like the held-out ones. It does not reach a laboratory that they do not come from.

    Arguments:
        probabilities: of cells that the classifier was not fitted on, `[N, C]`.
        labels: their true classes, 0..C-1, `[N]`.
        error: share of wrong answers that is allowed, between 0 and 1.
        confidence: of the promise, between 0 and 1.

    Raises:
        ValueError: no cells, arrays that do not fit each other, or shares out of range.
    """
    for name, value in {"error": error, "confidence": confidence}.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}; expected a share between 0 and 1.")
    values, y = as_probabilities(probabilities), plain_labels(probabilities, labels)
    top, right = values.max(1), values.argmax(1) == y
    order = np.sort(top)[::-1]
    for tenths in range(_TRIED, 0, -1):
        threshold = float(order[ceil(len(top) * tenths / _TRIED) - 1])
        kept = top >= threshold
        wrong = int((kept & ~right).sum())
        bound = upper_bound(wrong, int(kept.sum()), 1 - (1 - confidence) / _TRIED)
        if bound <= error:
            return Threshold(threshold, error, confidence, len(y), int(kept.sum()), wrong, bound)
    return Threshold(None, error, confidence, len(y), 0, 0, 1.0)


def upper_bound(wrong: int, kept: int, confidence: float) -> float:
    """Clopper-Pearson upper bound on a share of which `wrong` of `kept` were seen: the `confidence` quantile of
    Beta(wrong + 1, kept - wrong), 1 where all were wrong."""
    if wrong >= kept:
        return 1.0
    return float(require("scipy.special", "Calibration", "cells").betaincinv(wrong + 1, kept - wrong, confidence))
