"""The cut that separates scores into two classes best."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from acclimate.core.config import between
from acclimate.parts.diversity.discriminator import Discriminator, Threshold, discriminators
from acclimate.parts.diversity.reference import Reference

__all__ = ["Otsu", "otsu_threshold"]


def otsu_threshold(scores: Tensor) -> tuple[Threshold, float] | None:
    """The cut of scores `[n]` with the highest variance between classes, and its share of the whole; None for equals.

    Cuts are the mid-points of neighbouring distinct scores, the typical scores the means of the classes.

    >>> cut, share = otsu_threshold(torch.tensor([1.0, 2.0, 5.0, 6.0]))
    >>> cut, round(share, 3)
    (Threshold(value=3.5, low=1.5, high=5.5), 0.941)
    """
    values = scores.detach().to("cpu", torch.float64)
    values = values[values.isfinite()].sort().values
    if len(values) < 2 or bool(values[0] == values[-1]):
        return None
    count = torch.arange(1, len(values), dtype=torch.float64)
    below = values.cumsum(0)[:-1]
    low, high = below / count, (values.sum() - below) / (len(values) - count)
    apart = count * (len(values) - count) * (high - low).square() / len(values) ** 2
    apart = apart.where(values[1:] > values[:-1], -1.0)
    best = int(apart.argmax())
    cut = Threshold(float((values[best] + values[best + 1]) / 2), float(low[best]), float(high[best]))
    return cut, float(apart[best] / values.var(correction=0))


@discriminators.register("otsu")
@dataclass(frozen=True, kw_only=True)
class Otsu(Discriminator):
    """The cut of `otsu_threshold`, if it explains most of the scores' variance; else the reference's, if there is one.

    Needs no balance: one batch in ten may be of the other kind. Of a Gaussian sample the best cut explains 0.64, of a
    uniform one 0.75. Ours, not DATTA's.

    Arguments: `warm_up` >= 1 scores; `separation` in [0, 1], the least share of the variance; `fallback`, a
    `Reference` with images of the source, or None.
    """

    warm_up: int = 20
    separation: float = 0.82
    fallback: Reference | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        between(0, 1, separation=self.separation)
        if self.fallback is not None:
            object.__setattr__(self, "fallback", discriminators.build(self.fallback))

    def threshold(self, scores: Tensor) -> Threshold | None:
        found = otsu_threshold(scores)
        return found[0] if found and found[1] >= self.separation else None

    @property
    def reference(self) -> Reference | None:
        return self.fallback
