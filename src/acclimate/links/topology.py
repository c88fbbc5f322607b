"""What an exchange costs beyond one message on one link."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from acclimate.core.config import one_of, whole

__all__ = ["TOPOLOGIES", "FanOut", "fan_out"]


class FanOut(NamedTuple):
    """Attributes:
    copies: kappa; the effective bandwidth is the link's over this.
    hops: times the latency is gone through.
    """

    copies: float
    hops: int


TOPOLOGIES: Mapping[str, Callable[[int], FanOut]] = MappingProxyType(
    {
        "server": lambda workers: FanOut(1.0, 1),
        "gather": lambda workers: FanOut(workers - 1.0, 1),
        "ring_gather": lambda workers: FanOut(workers - 1.0, workers - 1),
        "ring_reduce": lambda workers: FanOut(2 * (workers - 1) / workers, 2 * (workers - 1)),
    }
)
"""By name: a parameter server's up-link [I], copies to everybody [D], and rings of sparse [D] or dense messages, whose
hops in the dense case are [K]."""


def fan_out(topology: str, workers: int) -> FanOut:
    """Copies and hops of one exchange.

    Arguments:
        topology: a name in `TOPOLOGIES`.
        workers: n, 2 or more.

    Raises:
        ValueError: an argument out of range.

    >>> fan_out("gather", 4), fan_out("ring_reduce", 4)
    (FanOut(copies=3.0, hops=1), FanOut(copies=1.5, hops=6))
    """
    one_of(*TOPOLOGIES, topology=topology)
    whole(2, workers=workers)
    return TOPOLOGIES[topology](workers)
