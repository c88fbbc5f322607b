"""What a policy would see if it knew the network: for the oracle, and for settings tuned at the mean."""

from __future__ import annotations

from acclimate.fields.wide_area.policy.conditions import Conditions
from acclimate.links.trace import Trace

__all__ = ["mean_conditions", "true_conditions"]


def true_conditions(trace: Trace, at: float, *, compute: float, latency: float, dense_bits: float) -> Conditions:
    """The conditions with the bandwidth of one moment; a policy that is given them is the oracle. [I]

    Arguments:
        trace: bandwidth over time.
        at: seconds, 0 or more.
        compute, latency, dense_bits: as in `Conditions`.

    Raises:
        ValueError: an argument out of range, or an outage: 0 bit/s.

    >>> from acclimate.links.traces import step_drop
    >>> true_conditions(step_drop(100.0, at=2.0), 3.0, compute=0.1, latency=0.2, dense_bits=1e6).bandwidth
    10.0
    """
    return Conditions(compute, trace.bandwidth(at), latency, dense_bits)


def mean_conditions(
    trace: Trace, start: float, end: float, *, compute: float, latency: float, dense_bits: float
) -> Conditions:
    """The conditions with the mean bandwidth from `start` to `end`, seconds: for `StaticAtMean`. [I]

    >>> from acclimate.links.traces import step_drop
    >>> mean_conditions(step_drop(100.0, at=2.0), 0.0, 4.0, compute=0.1, latency=0.2, dense_bits=1e6).bandwidth
    55.0
    """
    return Conditions(compute, trace.mean(start, end), latency, dense_bits)
