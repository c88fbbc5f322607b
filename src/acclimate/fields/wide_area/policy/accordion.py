"""Accordion: strong compression while gradients stay alike, weak compression while they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from acclimate.core.config import at_least, between, positive, whole
from acclimate.fields.wide_area.policy.base import Policy
from acclimate.fields.wide_area.policy.conditions import Conditions, Setting
from acclimate.fields.wide_area.policy.contraction import wire_ratio

__all__ = ["Accordion"]


@dataclass(frozen=True, kw_only=True)
class Accordion(Policy):
    """Two levels of compression, chosen once an epoch: strong where `|prev - cur| / prev < threshold`. [S]

    prev and cur are the gradient norms of the last two epochs; the first epoch is weak. The network has no say, so
    `decide` answers as for the first epoch, whatever the conditions: call `decide_by` at the end of each.

    Arguments:
        strong, weak: shares of entries kept, in (0, 1].
        threshold: relative change of the norm, above 0.
        staleness: 0 or more; 0 as published.
        bits_per_entry, value_bits: see `contraction`.

    Raises:
        ValueError: an argument out of range.

    Source: Accordion's public code, for the constants. Fails where norms change without training being at a critical
    point, as under a change of learning rate.

    >>> Accordion().decide_by([1.0, 0.9])
    Setting(staleness=0, ratio=0.2)
    """

    name: ClassVar[str] = "accordion"
    adapts: ClassVar[bool] = False

    strong: float = 0.1
    weak: float = 0.99
    threshold: float = 0.5
    staleness: int = 0
    bits_per_entry: float = 64
    value_bits: int = 32

    def __post_init__(self) -> None:
        positive(strong=self.strong, threshold=self.threshold, bits_per_entry=self.bits_per_entry)
        between(self.strong, 1, weak=self.weak)
        whole(0, staleness=self.staleness)

    def decide(self, conditions: Conditions) -> Setting:
        return self.decide_by(())

    def decide_by(self, norms: Sequence[float]) -> Setting:
        """The setting for the next epoch, after epochs with these gradient norms, the latest last.

        Raises:
            ValueError: a norm of the last two that is no number of 0 or more.
        """
        previous, current = (*norms[-2:],) if len(norms) > 1 else (0.0, 0.0)
        at_least(0, previous=previous, current=current)
        alike = abs(previous - current) < self.threshold * previous
        kept = self.strong if alike else self.weak
        return Setting(self.staleness, wire_ratio(kept, self.bits_per_entry, self.value_bits))

    def stalest(self) -> int:
        return self.staleness
