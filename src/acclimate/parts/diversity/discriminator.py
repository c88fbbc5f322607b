"""Rules that find, in the scores of a stream, the border between batches of one domain and of several."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from acclimate.core.config import Configured, whole
from acclimate.core.registry import Registry

if TYPE_CHECKING:
    from acclimate.parts.diversity.reference import Reference

__all__ = ["Discriminator", "Threshold", "discriminators"]


class Threshold(NamedTuple):
    """A border between two kinds of scores, and a typical score of each kind."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Discriminator(Configured, abc.ABC):
    """Where scores stop to be those of one domain.

    Argument: `warm_up` >= 1, how many scores there must be, the batch's own among them.
    """

    warm_up: int = 50

    def __post_init__(self) -> None:
        whole(1, warm_up=self.warm_up)

    @abc.abstractmethod
    def threshold(self, scores: Tensor) -> Threshold | None:
        """The border in scores `[n]`, float64 on the CPU, at least `warm_up` and not all equal; None for no answer."""

    @property
    def reference(self) -> Reference | None:
        """What is to be measured on images of the source, and holds where the scores give no answer."""
        return None


discriminators: Registry[Discriminator] = Registry("discriminator", "acclimate.parts.diversity", Discriminator)
