"""What guards read of a batch, by name, and how they write down what they keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from acclimate.core.guard import Look
from acclimate.guard.signals import concentration, flip_rate, sureness

__all__ = ["SIGNALS", "loss", "note"]


def loss(look: Look) -> float:
    """The step's loss, or where the method says none the mean entropy of its answers, as a share of ln C."""
    if look.loss is None:
        return 1 - sureness(look.logits)
    return look.loss / math.log(look.logits.shape[1])


SIGNALS: Mapping[str, Callable[[Look], float]] = {
    "entropy": lambda look: 1 - sureness(look.logits),
    "concentration": lambda look: concentration(look.logits),
    "flips": lambda look: flip_rate(look.adapted, look.source),
    "loss": loss,
    "distance": lambda look: look.distance,
}
"""One number a batch: of the answers, mean entropy and concentration as shares of ln C, and the share that the source
names differently; the loss as a share of ln C; the distance of the weights from the source, in norms of those."""


def note(kept: Mapping[str, Tensor], **values: float) -> None:
    """Write single numbers into what is kept."""
    for name, value in values.items():
        kept[name].fill_(value)
