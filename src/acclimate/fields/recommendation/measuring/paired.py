"""Is one set of scores really better than another? Differences on the same rows, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from acclimate.core.config import whole
from acclimate.fields.recommendation.measuring.scores import checked, log_losses, weighted_auc

__all__ = ["Gain", "Interval", "paired_gain"]

_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference and the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def real(self) -> bool:
        """Whether it leaves out nought."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


@dataclass(frozen=True, slots=True)
class Gain:
    """Of scores over others: AUC, where above nought is better, and log loss, where below nought is."""

    auc: Interval
    log_loss: Interval

    @property
    def better(self) -> bool:
        """Whether both are, beyond their intervals."""
        return self.auc.low > 0 and self.log_loss.high < 0


def paired_gain(
    logits: ArrayLike,
    others: ArrayLike,
    labels: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Gain:
    """What `logits` gain over `others` on the same rows, with percentile intervals.

    Rows are drawn with replacement, the same ones for both. A draw without one of the labels is left out.

    Arguments: `logits`, `others`, `labels`, `[N]` each; `confidence`, between 0 and 1; `resamples`, 100 or more.

    Raises ValueError as `scores` does.
    """
    whole(100, resamples=resamples)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number between 0 and 1, such as 0.95.")
    ours, y = checked(logits, labels)
    theirs, _ = checked(others, labels)
    losses = log_losses(ours, y) - log_losses(theirs, y)
    random = np.random.default_rng(seed)
    areas: list[float] = []
    means: list[float] = []
    count = len(y)
    block = max(1, _BLOCK // count)
    for start in range(0, resamples, block):
        rows = random.integers(count, size=(min(block, resamples - start), count))
        weights = np.stack([np.bincount(each, minlength=count) for each in rows]).astype(np.float64)
        areas += (weighted_auc(ours, y, weights) - weighted_auc(theirs, y, weights)).tolist()
        means += (weights @ losses / count).tolist()
    once = np.ones((1, count))
    area = float((weighted_auc(ours, y, once) - weighted_auc(theirs, y, once))[0])
    return Gain(_interval(area, areas, confidence), _interval(float(losses.mean()), means, confidence))


def _interval(value: float, draws: list[float], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
