"""What every rule for staleness and ratio has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from acclimate.core.config import Configured
from acclimate.fields.wide_area.policy.conditions import Conditions, Setting
from acclimate.fields.wide_area.policy.noise import half

__all__ = ["Policy"]


@dataclass(frozen=True, kw_only=True)
class Policy(Configured, ABC):
    """A pure function from conditions to a setting: workers with equal conditions decide alike. [S]

    A new rule needs `decide` and `stalest`; the others are for a `Controller` that holds staleness back.

    >>> from acclimate.fields.wide_area.policy.fixed import Static
    >>> Static(staleness=1, ratio=0.02).decide(Conditions(0.1, 1e6, 0.2, 1e6))
    Setting(staleness=1, ratio=0.02)
    """

    adapts: ClassVar[bool] = True
    """Whether ratios follow the conditions, so that a controller may round them to a grid."""

    @property
    def rounds_within(self) -> tuple[float, float]:
        """The smallest ratio it allows, and the smallest that is dense: a controller's grid respects both."""
        return 0.0, 1.0

    @abstractmethod
    def decide(self, conditions: Conditions) -> Setting:
        """The setting for these conditions."""

    @abstractmethod
    def stalest(self) -> int:
        """The most staleness it ever asks for."""

    def limited(self, most_stale: int) -> Policy:
        """The same rule with no more staleness than this, as far as it can do with less; by default the rule itself."""
        return self

    def keeping(self, staleness: int, conditions: Conditions) -> Setting:
        """What it would choose if staleness were given."""
        return replace(self.decide(conditions), staleness=staleness)

    def noise_of(self, setting: Setting) -> float:
        """The factor by which it compares settings of equal speed; smaller is better."""
        return half(setting.ratio, setting.staleness)
