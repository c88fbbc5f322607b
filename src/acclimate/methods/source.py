"""Source: the unadapted model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.normalization import Normalization

__all__ = ["Source"]


@methods.register("source")
@dataclass(frozen=True, kw_only=True)
class Source(Method):
    """Answer every batch with the source model: what all others are compared with.

    Eval mode, running statistics, no graph, no state. Cost: one forward.

    Example: `acclimate.adapt(net, "source")`.
    """

    card: ClassVar[Card] = Card(
        summary="answers with the source model and learns nothing",
        paper="the baseline of every paper",
        fails_when="the stream differs from the training data",
    )
    normalization: str | Normalization = "source"

    def cost(self) -> Cost:
        return Cost(forwards=1, backwards=0, bound=1)
