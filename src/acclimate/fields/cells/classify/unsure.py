"""An "unsure" flag with a promise: among the answers that are kept, few are wrong, in each laboratory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.core.config import between, whole
from acclimate.fields.cells.classify.arrays import Array, as_probabilities
from acclimate.fields.cells.classify.temperature import Temperature, plain_labels
from acclimate.streams.shared import require

__all__ = ["Part", "Temperature", "Threshold", "calibrate", "upper_bound"]

_TRIED = 10
"""Thresholds that are tried: those that keep 10, 9, ... 1 tenths of the held-out cells."""


@dataclass(frozen=True, slots=True)
class Part:
    """Held-out cells of one laboratory.

    Attributes:
        name: of the laboratory.
        cells: how many were held out.
        kept, wrong: of these, how many are kept and how many of those are wrong.
        bound: upper bound on the share of wrong answers among kept ones; 1 where none is kept.
        covered: whether there are enough for the promise, which then holds here.
    """

    name: str
    cells: int
    kept: int
    wrong: int
    bound: float
    covered: bool


@dataclass(frozen=True, slots=True)
class Threshold:
    """A cell is unsure if its highest probability lies below `value`.

    Attributes:
        value: the threshold; None where no threshold keeps the promise, so that every cell is unsure.
        error, confidence: what was asked for.
        cells: held-out cells that it was calibrated on.
        kept, wrong: of these, how many are kept and how many of those are wrong.
        bound: upper bound on the share of wrong answers among kept ones, the largest of all covered laboratories; 1
            where every cell is unsure.
        parts: the same of each laboratory.

    Raises ValueError for a value that is no probability.
    """

    value: float | None
    error: float
    confidence: float
    cells: int
    kept: int
    wrong: int
    bound: float
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        between(0, 1, threshold=0 if self.value is None else self.value, error=self.error, confidence=self.confidence)
        whole(0, cells=self.cells, kept=self.kept, wrong=self.wrong)

    @property
    def needed(self) -> int:
        """How many held-out cells a laboratory must have to be covered."""
        return _needed(self.error, self.confidence, len(self.parts))

    def unsure(self, probabilities: Array) -> NDArray[np.bool_]:
        """Which cells are unsure: probabilities `[N, C]` to bool `[N]`."""
        top = as_probabilities(probabilities).max(1)
        return np.ones(len(top), dtype=np.bool_) if self.value is None else top < self.value

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Threshold:
        """What `to_dict` gave; ValueError where a field is missing, unknown or out of range."""
        try:
            given: dict[str, Any] = {**values, "parts": tuple(Part(**each) for each in values["parts"])}
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise ValueError(f"This is no threshold: {error}. Expected what Threshold.to_dict gives.") from error


def calibrate(
    probabilities: Array,
    labels: Array,
    *,
    error: float = 0.05,
    confidence: float = 0.95,
    laboratories: Sequence[str] | None = None,
) -> Threshold:
    """The lowest threshold that keeps the share of wrong answers among kept ones at `error` or below.

    Ten thresholds are tried, those that keep ten tenths of the held-out cells down to one tenth. With L laboratories,
    each is held to the exact binomial (Clopper-Pearson) upper bound of each laboratory at confidence
    `1 - (1 - confidence) / (10 L)`, so that the promise holds for the one that is chosen, in all of them at once: over
    repeated calibrations, at least the share `confidence` of the thresholds let no more than `error` wrong answers
    through among new cells of any. Without a single error this takes 104 kept cells of one laboratory at the defaults,
    117 of each of two. A laboratory with fewer held-out cells has no say, and is not covered.

    The promise is for cells like the held-out ones. It does not reach a laboratory that they do not come from.

    Arguments:
        probabilities: of cells that the classifier was not fitted on, `[N, C]`.
        labels: their true classes, 0..C-1, `[N]`.
        error: share of wrong answers that is allowed, between 0 and 1.
        confidence: of the promise, between 0 and 1.
        laboratories: the name of each cell's, `[N]`; all are of one without them.

    Raises:
        ValueError: no cells, arrays that do not fit each other, or shares out of range.
    """
    for name, value in {"error": error, "confidence": confidence}.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}; expected a share between 0 and 1.")
    values, y = as_probabilities(probabilities), plain_labels(probabilities, labels)
    names = [""] * len(y) if laboratories is None else list(laboratories)
    if len(names) != len(y):
        raise ValueError(f"There are {len(names)} names of laboratories for {len(y)} cells; expected one for each.")
    top, right = values.max(1), values.argmax(1) == y
    own = {name: np.array([each == name for each in names]) for name in dict.fromkeys(names)}
    least, level = _needed(error, confidence, len(own)), 1 - (1 - confidence) / (_TRIED * len(own))
    order = np.sort(top)[::-1]

    def tried(threshold: float | None) -> Threshold:
        kept = np.zeros(len(top), dtype=np.bool_) if threshold is None else top >= threshold
        parts = tuple(_part(name, kept[mine], right[mine], level, least) for name, mine in own.items())
        bound = max((part.bound for part in parts if part.covered), default=1.0)
        wrong = int((kept & ~right).sum())
        return Threshold(threshold, error, confidence, len(y), int(kept.sum()), wrong, bound, parts)

    for tenths in range(_TRIED, 0, -1):
        found = tried(float(order[ceil(len(top) * tenths / _TRIED) - 1]))
        if found.bound <= error:
            return found
    return tried(None)


def _needed(error: float, confidence: float, laboratories: int) -> int:
    """The least n with (1 - error)^n <= (1 - confidence) / (10 L)."""
    return ceil(log((1 - confidence) / (_TRIED * max(1, laboratories))) / log(1 - error))


def _part(name: str, kept: NDArray[np.bool_], right: NDArray[np.bool_], level: float, least: int) -> Part:
    wrong = int((kept & ~right).sum())
    bound = upper_bound(wrong, int(kept.sum()), level)
    return Part(name, len(kept), int(kept.sum()), wrong, bound, len(kept) >= least)


def upper_bound(wrong: int, kept: int, confidence: float) -> float:
    """Clopper-Pearson upper bound on a share of which `wrong` of `kept` were seen: the `confidence` quantile of
    Beta(wrong + 1, kept - wrong), 1 where all were wrong."""
    if wrong >= kept:
        return 1.0
    return float(require("scipy.special", "Calibration", "cells").betaincinv(wrong + 1, kept - wrong, confidence))
