"""What must hold of the state after a step for the step to be kept."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.core import foreach
from acclimate.core.state import State
from acclimate.core.table import Snapshot

__all__ = ["LARGEST_STEP", "state_demands"]

LARGEST_STEP = 0.5
"""A step that moves the weights by more than this share of the source's norm is an explosion, not learning."""

_LEAST_SIZE = 0.04
"""The norm of weights that start at or near zero is taken to be at least this much per weight."""


def state_demands(state: State, logits: Tensor, before: Snapshot) -> list[tuple[str, Tensor]]:
    """Flags on the device: everything is finite, and no set of weights has jumped."""
    demands = list[tuple[str, Tensor]]()
    floating = [s.tensor for _, s in state.table.entries() if s.tensor.is_floating_point() and s.tensor.numel()]
    if floating:
        whole = foreach.largest(floating, logits.device).isfinite().all()
        demands.append(("the new state is not finite", whole))
    if state.weights:
        now = list(state.weights.values())
        least = _LEAST_SIZE * sum(weight.numel() for weight in now) ** 0.5
        size = foreach.norm(state.sources()).clamp_min(least)
        moved = foreach.norm(now, minus=[before.tensors[f"weights.{name}"] for name in state.weights]) / size
        state.note(moved=moved, distance=foreach.norm(now, minus=state.sources()) / size)
        for twin, tensors in state.twins.items():
            earlier = [before.tensors[f"method.{twin}.{name}"] for name in tensors]
            moved = torch.maximum(moved, foreach.norm(list(tensors.values()), minus=earlier) / size)
        demands.append((f"the step moved the weights by over {LARGEST_STEP:.0%}", moved <= LARGEST_STEP))
    return demands
