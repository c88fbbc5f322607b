"""Noticing that training runs away."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from acclimate.core.config import positive, whole
from acclimate.fields.wide_area.policy.state import expect_keys

__all__ = ["Divergence"]


class Divergence:
    """Notices, once, a median of |u| over `window` steps above `factor` times that before, or one not finite. [I]

    That before is of up to ten windows before the last one, so a slow rise over hundreds of steps goes unnoticed, as
    does anything in the first two windows. The mean of the last window, which the specification has, takes a few hard
    batches late in training for divergence, and its factor of 5 the growth of gradients at the start.

    Arguments:
        window: steps, 1 or more.
        factor: above 0; 20 by default.

    Raises:
        ValueError: an argument out of range.

    >>> divergence = Divergence(window=2)
    >>> [divergence.observe(norm) for norm in (1.0, 1.0, 1.0, 50.0, 50.0)]
    [False, False, False, True, False]
    """

    def __init__(self, window: int = 20, factor: float = 20.0) -> None:
        whole(1, window=window)
        positive(factor=factor)
        self._window, self._factor = window, factor
        self._norms: deque[float] = deque(maxlen=11 * window)
        self.noticed = False

    def observe(self, norm: float) -> bool:
        """Take in |u| of the next update; True at the step that shows divergence, and never again."""
        if self.noticed:
            return False
        if not math.isfinite(norm):
            self.noticed = True
            return True
        self._norms.append(norm)
        if len(self._norms) < 2 * self._window:
            return False
        norms = list(self._norms)
        last, before = norms[-self._window :], norms[: -self._window]
        self.noticed = statistics.median(last) > self._factor * statistics.median(before)
        return self.noticed

    def restart(self) -> None:
        """Forget the norms so far: what comes is another kind of update."""
        self._norms.clear()

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as JSON values."""
        return {"norms": list(self._norms), "noticed": self.noticed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` returned. ValueError for anything else."""
        expect_keys(state, ("norms", "noticed"), "the divergence monitor")
        self._norms = deque(map(float, state["norms"]), maxlen=self._norms.maxlen)
        self.noticed = bool(state["noticed"])
