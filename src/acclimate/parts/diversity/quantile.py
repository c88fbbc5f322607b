"""A running quantile of the scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from acclimate.core.config import between
from acclimate.parts.diversity.discriminator import Discriminator, Threshold, discriminators

__all__ = ["Quantile"]


@discriminators.register("quantile")
@dataclass(frozen=True, kw_only=True)
class Quantile(Discriminator):
    """Scores up to their own running quantile are low: always a share of the batches, whatever the stream.

    Arguments: `warm_up` >= 1 scores; `share` in [0, 1], the quantile. Both inferred: the abstract of DATTA's first
    version only says that scores are told apart.
    """

    warm_up: int = 10
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        between(0, 1, share=self.share)

    def threshold(self, scores: Tensor) -> Threshold:
        value = float(scores.quantile(self.share))
        low, high = scores[scores <= value].median(), scores[scores >= value].median()
        return Threshold(math.nextafter(value, math.inf), float(low), float(high))  # so that equal scores are below
