"""Is one set of scores really better than another? Differences on the same rows, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from acclimate.core.config import whole
from acclimate.core.intervals import Bounded, percentiles
from acclimate.fields.recommendation.measuring.scores import Floats, checked, log_losses, weighted_auc

__all__ = ["Gain", "Interval", "paired_gain", "paired_gains"]

_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval(Bounded):
    """A difference and the ends of its interval."""

    value: float
    low: float
    high: float

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

    Rows are drawn with replacement, the same ones for both. A draw with one label only has no AUC, and is left out of
    its interval. Of several seeds the gain is the mean of theirs, under the same draws of rows: the interval is about
    other rows, not about other seeds.

    Arguments:
        logits, others: `[N]` each, or `[S, N]` of S seeds, in the same order.
        labels: 0 or 1, `[N]`.
        confidence: between 0 and 1.
        resamples: draws of rows, 100 or more.
        seed: of the draws.

    Raises:
        ValueError: `confidence` or `resamples` out of range, others of another shape, or rows that `scores` refuses.
    """
    return paired_gains(logits, others, labels, confidence=confidence, resamples=resamples, seed=seed)[0]


def paired_gains(
    logits: ArrayLike,
    others: ArrayLike,
    labels: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Gain, tuple[Gain, ...]]:
    """As `paired_gain`, and the gain of each seed by itself."""
    whole(100, resamples=resamples)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number between 0 and 1, such as 0.95.")
    ours, theirs = np.atleast_2d(np.asarray(logits)), np.atleast_2d(np.asarray(others))
    if ours.ndim != 2 or ours.shape != theirs.shape or not len(ours):
        raise ValueError(f"found logits {list(ours.shape)} and others {list(theirs.shape)}, expected [S, N] of both.")
    y = checked(ours[0], labels)[1]
    pairs = [(checked(mine, labels)[0], checked(other, labels)[0]) for mine, other in zip(ours, theirs, strict=True)]
    losses = np.stack([log_losses(mine, y) - log_losses(other, y) for mine, other in pairs])
    areas, means = _draws(pairs, losses, y, resamples, seed)
    area, mean = _areas(pairs, y, np.ones((1, len(y))))[:, 0], losses.mean(1)

    def gain(area: float, areas: Floats, mean: float, means: Floats) -> Gain:
        return Gain(Interval(area, *percentiles(areas, confidence)), Interval(mean, *percentiles(means, confidence)))

    each = tuple(gain(float(a), d, float(m), e) for a, d, m, e in zip(area, areas, mean, means, strict=True))
    return gain(float(area.mean()), areas.mean(0), float(mean.mean()), means.mean(0)), each


def _draws(
    pairs: list[tuple[Floats, Floats]], losses: Floats, labels: Floats, resamples: int, seed: int
) -> tuple[Floats, Floats]:
    """Differences of AUC and of mean log loss under draws of rows: `[S, R]` each."""
    random = np.random.default_rng(seed)
    areas: list[Floats] = []
    means: list[Floats] = []
    count = len(labels)
    block = max(1, _BLOCK // count)
    for start in range(0, resamples, block):
        rows = random.integers(count, size=(min(block, resamples - start), count))
        weights = np.stack([np.bincount(each, minlength=count) for each in rows]).astype(np.float64)
        areas.append(_areas(pairs, labels, weights))
        means.append(losses @ weights.T / count)
    return np.concatenate(areas, 1), np.concatenate(means, 1)


def _areas(pairs: list[tuple[Floats, Floats]], labels: Floats, weights: Floats) -> Floats:
    """`[S, R]`."""
    return np.stack(
        [weighted_auc(mine, labels, weights) - weighted_auc(other, labels, weights) for mine, other in pairs]
    )
