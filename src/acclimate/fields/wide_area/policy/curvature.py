"""A running estimate of the loss's curvature, from updates that are made anyway."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from acclimate.core.config import at_least, between, whole
from acclimate.fields.wide_area.policy.state import expect_keys

__all__ = ["Curvature"]


class Curvature:
    """`h = |u_s - u_(s-1)| / |x_s - x_(s-1)|`, the median of the last few, then an exponential average. [I]

    u is the mean gradient that is applied, x the weights; both are the same on all workers, and so is the estimate.
    Compression and sampling noise in u make it too large: it errs towards less staleness.

    Arguments:
        median_of: how many quotients the median is of, 1 or more.
        weight: of the newest median in the average, in (0, 1].

    Raises:
        ValueError: an argument out of range.

    >>> curvature = Curvature()
    >>> curvature.observe(gradient_change=0.2, weights_change=0.1)
    >>> curvature.value
    2.0
    """

    def __init__(self, median_of: int = 5, weight: float = 0.5) -> None:
        whole(1, median_of=median_of)
        between(1e-6, 1, weight=weight)
        self._weight = weight
        self._quotients: deque[float] = deque(maxlen=median_of)
        self.value: float | None = None

    def observe(self, gradient_change: float, weights_change: float) -> None:
        """Take in the norms of both differences; those that say nothing (no movement, not finite) are passed over.

        Raises:
            ValueError: a negative norm.
        """
        if not (math.isfinite(gradient_change) and math.isfinite(weights_change)):
            return
        at_least(0, gradient_change=gradient_change, weights_change=weights_change)
        if gradient_change == 0 or weights_change == 0 or not math.isfinite(gradient_change / weights_change):
            return
        self._quotients.append(gradient_change / weights_change)
        middle = statistics.median(self._quotients)
        self.value = middle if self.value is None else self._weight * middle + (1 - self._weight) * self.value

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as JSON values."""
        return {"quotients": list(self._quotients), "value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` returned. ValueError for anything else."""
        expect_keys(state, ("quotients", "value"), "the curvature estimate")
        self._quotients = deque(map(float, state["quotients"]), maxlen=self._quotients.maxlen)
        self.value = None if state["value"] is None else float(state["value"])
