"""What the network and the machines are like, and what is chosen for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from acclimate.core.config import positive, whole

__all__ = ["Conditions", "Report", "Setting", "agreed"]


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that a policy may look at. [S]

    Arguments:
        compute: T_comp, seconds of one iteration's local work, waiting apart; above 0.
        bandwidth: a, bit/s that a worker's messages get, fan-out included; above 0.
        latency: b, seconds from the last bit sent until the message is usable everywhere; 0 or more.
        dense_bits: S_g, bits of the whole gradient as float32; above 0.

    Raises:
        ValueError: a number out of range or not finite.

    >>> Conditions(compute=0.5, bandwidth=1e8, latency=0.2, dense_bits=3.968e9).latency
    0.2
    """

    compute: float
    bandwidth: float
    latency: float
    dense_bits: float

    def __post_init__(self) -> None:
        positive(compute=self.compute, bandwidth=self.bandwidth, dense_bits=self.dense_bits)
        if not 0 <= self.latency < float("inf"):
            raise ValueError(f"latency must be a finite number of seconds, 0 or more, found {self.latency!r}.")


@dataclass(frozen=True, slots=True)
class Setting:
    """What is chosen. [S]

    Arguments:
        staleness: tau, iterations between the one that made a message and the one that applies it, less one; 0 is
            synchronous.
        ratio: delta, bits on the wire per iteration over those of the dense gradient, in (0, 1]. Not the share of
            entries kept: see `contraction`.

    Raises:
        ValueError: a value out of range.

    >>> Setting(2, 0.0126)
    Setting(staleness=2, ratio=0.0126)
    """

    staleness: int
    ratio: float

    def __post_init__(self) -> None:
        whole(0, staleness=self.staleness)
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must lie in (0, 1], found {self.ratio!r}.")


class Report(NamedTuple):
    """What one worker measured, as its message headers carry it; NaN is what it does not know yet.

    >>> Report(0.05, 4e6, 0.1).bandwidth
    4000000.0
    """

    compute: float
    bandwidth: float
    latency: float


def agreed(reports: Iterable[Report], dense_bits: float) -> Conditions | None:
    """The conditions that all workers act on: the slowest machine, the narrowest link, the longest way. [I]

    `T = max_i T_i, a = min_i a_i, b = max_i (T_i + b_i) - T`: what a faster machine sends has left the earlier, and so
    has less of its way to hide; and of what such a machine waited, the slower one's work is no latency. Given the
    headers of one message, which are the same on every worker, all of them get the same conditions without asking each
    other.

    Arguments:
        reports: one of each worker, at least one.
        dense_bits: S_g.

    Returns:
        None where some worker does not know a number yet (NaN), or has one that is no measurement: 0 or infinity.

    Raises:
        ValueError: no reports.

    >>> agreed([Report(0.25, 4e6, 1.0), Report(0.5, 5e6, 0.5)], 1e6)
    Conditions(compute=0.5, bandwidth=4000000.0, latency=0.75, dense_bits=1000000.0)
    """
    computes, bandwidths, latencies = zip(*reports, strict=True) if (reports := list(reports)) else ((), (), ())
    if not computes:
        raise ValueError("found no reports, expected one of each worker.")
    measured = all(0 < each < float("inf") for each in (*computes, *bandwidths))
    if not measured or not all(0 <= each < float("inf") for each in latencies):
        return None
    slowest = max(computes)
    latency = max(way - (slowest - compute) for compute, way in zip(computes, latencies, strict=True))
    return Conditions(slowest, min(bandwidths), latency, dense_bits)
