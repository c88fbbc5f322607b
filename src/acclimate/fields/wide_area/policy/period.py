"""The time model: how long an iteration takes in the long run."""

from __future__ import annotations

from acclimate.fields.wide_area.policy.conditions import Conditions, Setting

__all__ = ["period", "zero_stall"]

_ROUNDING = 1 + 1e-9


def period(setting: Setting, conditions: Conditions) -> float:
    """Seconds per iteration once the pipeline is full. [D]

    `P = max(T, delta S / a, (T + delta S / a + b) / (tau + 1))`: the compute lane, the link, or the round of one
    message shared by the `tau + 1` that are under way, whichever is slowest.

    It fails where bandwidth changes within an iteration, and says nothing of the first iterations, which are shorter.

    >>> conditions = Conditions(compute=0.1, bandwidth=1e6, latency=0.2, dense_bits=1e6)
    >>> [round(period(Setting(tau, 0.05), conditions), 5) for tau in range(4)]
    [0.35, 0.175, 0.11667, 0.1]
    """
    compute, sending = conditions.compute, setting.ratio * conditions.dense_bits / conditions.bandwidth
    return max(compute, sending, (compute + sending + conditions.latency) / (setting.staleness + 1))


def zero_stall(setting: Setting, conditions: Conditions) -> bool:
    """Whether no iteration waits: `delta <= a T / S` and `delta <= a (tau T - b) / S`, up to rounding. [I]

    >>> zero_stall(Setting(2, 0.0126), Conditions(compute=0.5, bandwidth=1e8, latency=0.2, dense_bits=3.968e9))
    True
    """
    return period(setting, conditions) <= conditions.compute * _ROUNDING
