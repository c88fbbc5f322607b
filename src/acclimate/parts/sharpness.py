"""Weights moved to where the loss is worst nearby (SAM)."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

import torch
from torch import Tensor

from acclimate.core import foreach
from acclimate.core.state import State

__all__ = ["perturbed"]

_LEAST = 1e-12


@contextlib.contextmanager
def perturbed(state: State, gradients: Mapping[str, Tensor], radius: float) -> Generator[None]:
    """Within this block the adapted weights are `theta + radius * g / (||g|| + 1e-12)`, one norm over all of them.

    Afterwards they are what they were, bit for bit: other storage stood in for theirs. A graph built in the block
    ends with it.
    """
    weights = list(state.weights.values())
    own, found = [weight.data for weight in weights], list(gradients.values())
    with torch.no_grad():
        scale = radius / (foreach.norm(found) + _LEAST)
        moved = foreach.add(own, foreach.multiply(found, [scale] * len(found)))
    for weight, tensor in zip(weights, moved, strict=True):
        weight.data = tensor
    try:
        yield
    finally:
        for weight, tensor in zip(weights, own, strict=True):
            weight.data = tensor
