"""Rules to compare with: synchronous, delayed without compression, and settings that never change."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from acclimate.core.config import whole
from acclimate.fields.wide_area.policy.base import Policy
from acclimate.fields.wide_area.policy.conditions import Conditions, Setting
from acclimate.fields.wide_area.policy.deco import DeCo

__all__ = ["DelayedDense", "Static", "StaticAtMean", "Synchronous"]


@dataclass(frozen=True, kw_only=True)
class Synchronous(Policy):
    """D-SGD: `tau = 0, delta = 1`. [S] Every iteration waits for all bits and the latency.

    >>> Synchronous().decide(Conditions(0.1, 1e6, 0.2, 1e6))
    Setting(staleness=0, ratio=1.0)
    """

    name: ClassVar[str] = "synchronous"
    adapts: ClassVar[bool] = False

    def decide(self, conditions: Conditions) -> Setting:
        return Setting(0, 1.0)

    def stalest(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Static(Policy):
    """One setting for good. [I] With `staleness=0` it is Top-k with error feedback; [K] `ratio=1` is delayed SGD.

    It stalls, or leaves the link idle, as soon as the network is another than it was chosen for.

    Arguments:
        staleness: 0 or more.
        ratio: in (0, 1].

    Raises:
        ValueError: an argument out of range.

    >>> Static(staleness=1, ratio=0.02).decide(Conditions(0.1, 1e6, 0.2, 1e6))
    Setting(staleness=1, ratio=0.02)
    """

    name: ClassVar[str] = "static"
    adapts: ClassVar[bool] = False

    staleness: int = 1
    ratio: float = 0.01

    def __post_init__(self) -> None:
        Setting(self.staleness, self.ratio)

    def decide(self, conditions: Conditions) -> Setting:
        return Setting(self.staleness, self.ratio)

    def stalest(self) -> int:
        return self.staleness

    def limited(self, most_stale: int) -> Static:
        return Static(staleness=min(self.staleness, most_stale), ratio=self.ratio)


@dataclass(frozen=True, kw_only=True)
class StaticAtMean(Policy):
    """What another rule decides for the mean conditions, for good. [I]

    Arguments:
        mean: the conditions to decide for.
        rule: the rule that decides, `DeCo()` by default.

    >>> mean = Conditions(compute=0.05, bandwidth=1e8, latency=0.1, dense_bits=3.84e7)
    >>> StaticAtMean(mean=mean).decide(Conditions(0.05, 1e7, 0.1, 3.84e7)).staleness
    3
    """

    name: ClassVar[str] = "static_at_mean"
    adapts: ClassVar[bool] = False

    mean: Conditions
    rule: Policy = field(default_factory=DeCo)

    def decide(self, conditions: Conditions) -> Setting:
        return self.rule.decide(self.mean)

    def stalest(self) -> int:
        return self.rule.stalest()

    def limited(self, most_stale: int) -> StaticAtMean:
        return StaticAtMean(mean=self.mean, rule=self.rule.limited(most_stale))


@dataclass(frozen=True, kw_only=True)
class DelayedDense(Policy):
    """DD-SGD: `delta = 1, tau = ceil((b + S / a) / T)`. [I] Latency can be hidden this way, bandwidth cannot.

    Arguments:
        most_stale: cap of tau, 0 or more.

    Raises:
        ValueError: an argument out of range.

    >>> DelayedDense().decide(Conditions(compute=0.1, bandwidth=1e7, latency=0.2, dense_bits=1e6))
    Setting(staleness=3, ratio=1.0)
    """

    name: ClassVar[str] = "delayed_dense"

    most_stale: int = 8

    def __post_init__(self) -> None:
        whole(0, most_stale=self.most_stale)

    def decide(self, conditions: Conditions) -> Setting:
        away = (conditions.latency + conditions.dense_bits / conditions.bandwidth) / conditions.compute
        return Setting(max(0, math.ceil(min(away - 1e-9, self.most_stale))), 1.0)

    def stalest(self) -> int:
        return self.most_stale

    def limited(self, most_stale: int) -> DelayedDense:
        return DelayedDense(most_stale=min(self.most_stale, most_stale))
