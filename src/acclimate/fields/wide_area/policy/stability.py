"""How much staleness a step size bears before training diverges, whatever the network says."""

from __future__ import annotations

import math

from acclimate.core.config import between, positive, whole

__all__ = ["limit", "most_stale", "step_share"]


def limit(staleness: int) -> float:
    """`2 sin(pi / (2 (2 tau + 1)))`: `x <- x - gamma h x_(t - tau)` is stable if and only if `gamma h` is below. [D]

    Exact for a quadratic without noise and without momentum, which lowers it.

    >>> [round(limit(tau), 3) for tau in (0, 1, 2, 4, 8)]
    [2.0, 1.0, 0.618, 0.347, 0.185]
    """
    whole(0, staleness=staleness)
    return 2 * math.sin(math.pi / (2 * (2 * staleness + 1)))


def most_stale(step_size: float, curvature: float, share: float = 0.5) -> int:
    """The largest tau with `gamma h < share * limit(tau)`; 0 where not even that one has it. [I]

    Arguments:
        step_size: gamma, above 0.
        curvature: h, the largest of the loss, above 0.
        share: how much of the limit may be used up, in (0, 1].

    Raises:
        ValueError: an argument out of range.

    >>> most_stale(0.05, 1.0), most_stale(0.1, 1.0), most_stale(5.0, 1.0)
    (15, 7, 0)
    """
    positive(step_size=step_size, curvature=curvature, share=share)
    between(0, 1, share=share)
    sine = step_size * curvature / (2 * share)
    if sine >= 1:
        return 0
    if sine < 1e-15:
        return 10**15
    near = max(0, math.floor((math.pi / (2 * math.asin(sine)) - 1) / 2))
    return max((each for each in (near - 1, near, near + 1) if each >= 0 and _within(each, sine)), default=0)


def _within(staleness: int, sine: float) -> bool:
    return 2 * sine < limit(staleness)


def step_share(staleness: int, reference: int) -> float:
    """What to multiply a step size with that was tuned at the staleness `reference`: `min(1, limit / limit)`. [I]

    >>> step_share(2, 4), round(step_share(4, 1), 3)
    (1.0, 0.347)
    """
    return min(1.0, limit(staleness) / limit(reference))
