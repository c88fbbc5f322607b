"""Fisher information of the adapted weights on the source: how much each of them matters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acclimate.core import foreach
from acclimate.core.state import State
from acclimate.functional import pseudo_label_loss
from acclimate.parts.source_images import source_batches

__all__ = ["declare_fisher", "measure_fisher", "pull"]


def declare_fisher(state: State) -> None:
    """Keep one constant for each adapted weight, zero until it is measured; a reset leaves it."""
    for name, weight in state.weights.items():
        fisher = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        state.declare(f"fisher.{name}", fisher, initial=fisher)


def measure_fisher(state: State, source: Any, samples: int, batch_size: int) -> None:
    """`F = mean_m g_m^2` over batches m of the source, with g the gradient of the mean pseudo-label loss of a batch.

    ValueError if there are no images, or if it is not finite.
    """
    squares = [state[f"fisher.{name}"].zero_() for name in state.weights]
    count = 0
    for x, _ in source_batches(state, source, batch_size, samples=samples):
        found = state.gradients(pseudo_label_loss(state.forward(x, answering=False)).mean())
        wide = [gradient.to(square.dtype) for gradient, square in zip(found.values(), squares, strict=True)]
        foreach.subtract(squares, foreach.multiply(wide, wide), -1.0)
        count += 1
    for square in squares:
        square.div_(count)
    if not bool(foreach.finite(squares, squares[0].device)):
        raise ValueError(
            "the gradients of the source images are not finite. Pass images as the model was trained on, without NaN."
        )


@torch.no_grad()
def pull(state: State, gradients: dict[str, Tensor], strength: float) -> dict[str, Tensor]:
    """Add the gradient of `strength * sum F (theta - theta_source)^2`, whose value is noted as `penalty`."""
    weights = list(state.weights.values())
    away = foreach.add(weights, state.sources(), -1.0)
    force = foreach.multiply([state[f"fisher.{name}"] for name in state.weights], away)
    state.note(penalty=strength * foreach.sums(foreach.multiply(force, away)).sum())
    pulled = foreach.add(list(gradients.values()), force, 2 * strength)
    return {name: new.to(old.dtype) for (name, old), new in zip(gradients.items(), pulled, strict=True)}
