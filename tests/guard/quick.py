"""Adaptations that learn fast, of a small net in float64, and what they learned."""

from __future__ import annotations

import torch
from torch import Tensor

import acclimate
from acclimate.core.guard import Guard
from acclimate.methods.tent import Tent
from conformance.models import MODELS, images
from conformance.tools import book

QUICK = Tent(learning_rate=0.05)
"""Learns fast enough for its entropy to fall within a few batches."""


def factory() -> torch.nn.Module:
    return MODELS["batch_norm"][0]().double()


def batch(number: int) -> Tensor:
    return images(number).double()


def adapt(guard: Guard | str | None, method: object = QUICK) -> acclimate.Adapted:
    return acclimate.adapt(factory(), method, guard=guard)


def weights(adapted: acclimate.Adapted) -> dict[str, Tensor]:
    adapted.settle()
    return {name: weight.detach().clone() for name, weight in adapted.state.weights.items()}


def learned(adapted: acclimate.Adapted) -> dict[str, object]:
    """Everything that is learned, without what guards keep, counters and generators."""
    return {
        name: value
        for name, value in book(adapted).items()
        if not name.startswith(("slot guard.", "counter", "generator"))
    }


def unguarded(count: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """What happens without a guard: answers, and weights before each batch and after the last."""
    adapted = adapt(None)
    told, held = [], [weights(adapted)]
    for number in range(count):
        told.append(adapted(batch(number)))
        held.append(weights(adapted))
    return told, held
