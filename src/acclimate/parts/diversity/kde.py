"""The valley between two peaks of the scores' density (DATTA's second version)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from acclimate.core.config import at_least, whole
from acclimate.parts.diversity.discriminator import Discriminator, Threshold, discriminators

__all__ = ["Kde", "Valley", "kde_threshold"]


class Valley(NamedTuple):
    """The lowest point between two peaks, and these with their densities."""

    value: float
    low: float
    low_density: float
    high: float
    high_density: float


def kde_threshold(scores: Tensor, points: int = 1000) -> Valley | None:
    """The valley between the two highest peaks of a Gaussian kernel density of scores `[n]`; None with fewer peaks.

    The bandwidth is Scott's, `n^(-1/5)` times the sample standard deviation; the density is looked at in `points`
    places from the lowest to the highest score. Peaks and valleys are strict and inside.

    >>> valley = kde_threshold(torch.tensor([0.10, 0.11, 0.12, 0.30, 0.31, 0.32] * 9))
    >>> 0.12 < valley.value < 0.30
    True
    """
    values = scores.detach().to("cpu", torch.float64)
    values = values[values.isfinite()]
    if len(values) < 2 or bool(values.max() == values.min()):
        return None
    bandwidth = values.std() * len(values) ** -0.2
    grid = torch.linspace(float(values.min()), float(values.max()), points, dtype=torch.float64)
    apart = ((grid[:, None] - values) / bandwidth).square_().mul_(-0.5).exp_()
    density = apart.sum(1) / (len(values) * bandwidth * (2 * torch.pi) ** 0.5)
    rises, falls = density[1:-1] > density[:-2], density[1:-1] > density[2:]
    peaks = (rises & falls).nonzero().flatten() + 1
    if len(peaks) < 2:
        return None
    first, second = peaks[density[peaks].topk(2).indices].sort().values.tolist()
    valleys = ((density[1:-1] < density[:-2]) & (density[1:-1] < density[2:])).nonzero().flatten() + 1
    valleys = valleys[(valleys > first) & (valleys < second)]
    if not len(valleys):
        return None
    lowest = int(valleys[density[valleys].argmin()])
    places = (grid[lowest], grid[first], density[first], grid[second], density[second])
    return Valley(*(float(place) for place in places))


@discriminators.register("kde")
@dataclass(frozen=True, kw_only=True)
class Kde(Discriminator):
    """The valley of `kde_threshold`, if both of its peaks are about as high.

    With fewer than two peaks, or when one is more than `density_ratio` times as dense as the other, there is no border:
    streams of one kind, or with few batches of one kind, are not told apart.

    Arguments: `warm_up` >= 1 scores, published 50; `density_ratio` >= 1, published 2; `points` >= 3, published 1000.
    """

    density_ratio: float = 2.0
    points: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, density_ratio=self.density_ratio)
        whole(3, points=self.points)

    def threshold(self, scores: Tensor) -> Threshold | None:
        valley = kde_threshold(scores, self.points)
        if valley is None:
            return None
        ratio = valley.low_density / valley.high_density
        balanced = 1 / self.density_ratio <= ratio <= self.density_ratio
        return Threshold(valley.value, valley.low, valley.high) if balanced else None
