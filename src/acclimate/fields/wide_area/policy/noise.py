"""How much worse an update gets by compression and delay: factors that rank settings of equal speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

__all__ = ["NOISE", "SHARE", "Noise", "half", "note", "tight"]

Noise = Callable[[float, int], float]
"""Contraction in (0, 1] and staleness to a factor of 0 or more; smaller is better."""

SHARE = 0.25
"""r of `tight`: 1 / n at the default of four workers."""


def half(contraction: float, staleness: int) -> float:
    """`phi = (1 - delta) / (delta (1 - delta / 2)^tau)`. [D]

    The bound on the error memory by Young's inequality, its decay counted from the iteration that applies a message.
    For tau of 6 or more it is not monotone in delta: compare settings with it, never minimise it over delta.

    >>> round(half(0.1, 4), 1), half(1.0, 8)
    (11.0, 0.0)
    """
    return _grown(contraction, contraction / 2, staleness)


def note(contraction: float, staleness: int) -> float:
    """`phi = (1 - delta) / (delta (1 - delta)^tau)` at `min(delta, 1/2)`. [S]

    As a reading note of the paper prints it. It grows without bound towards delta = 1 from tau = 2 on, although there
    is no noise without compression; hence the clipping. [I]

    >>> note(0.5, 2), note(0.9, 2)
    (4.0, 4.0)
    """
    clipped = min(contraction, 0.5)
    return _grown(clipped, clipped, staleness)


def tight(contraction: float, staleness: int, share: float = SHARE) -> float:
    """`phi = 4 (1 - delta) / delta^2 + 2 tau r`: compression and delay add up. [D]

    Arguments:
        contraction, staleness: delta and tau.
        share: `r = sigma^2 / (n (sigma^2 + zeta^2))`, of the gradient noise's variance and the workers' difference;
            1 / n where they have alike data.

    >>> tight(0.5, 4)
    10.0
    """
    return 4 * (1 - contraction) / contraction**2 + 2 * staleness * share


def _grown(contraction: float, rate: float, staleness: int) -> float:
    if contraction >= 1:
        return 0.0
    exponent = -staleness * math.log1p(-rate)
    return (1 - contraction) / contraction * math.exp(exponent) if exponent < 700 else math.inf


NOISE: Mapping[str, Noise] = MappingProxyType({"half": half, "note": note, "tight": tight})
"""By the names that `DeCo(noise=...)` takes."""
