"""Intervals of differences."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Bounded", "percentiles"]


class Bounded:
    """What has a lower and an upper end."""

    __slots__ = ()

    low: float
    high: float

    @property
    def real(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def percentiles(draws: ArrayLike, confidence: float) -> tuple[float, float]:
    """The ends between which this share of the draws lies, as much left out below as above; NaN are no draws.

    >>> percentiles(range(101), 0.5)
    (25.0, 75.0)
    """
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(np.asarray(draws, dtype=np.float64), [tail, 1 - tail])
    return float(low), float(high)
