"""What must hold of the state after a step for the step to be kept."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.core import foreach
from acclimate.core.state import State
from acclimate.core.table import Snapshot

__all__ = ["LARGEST_STEP", "measure_step", "state_demands"]

LARGEST_STEP = 0.5
"""A step that moves the weights by more than this share of the source's norm is an explosion, not learning."""

_LEAST_SIZE = 0.04
"""The norm of weights that start at or near zero is taken to be at least this much per weight."""


def state_demands(state: State, logits: Tensor, before: Snapshot) -> list[tuple[str, Tensor]]:
    """Flags on the device: everything is finite, and no set of weights has jumped."""
    demands = list[tuple[str, Tensor]]()
    floating = [s.tensor for _, s in state.table.entries() if s.tensor.is_floating_point() and s.tensor.numel()]
    if floating:
        whole = foreach.finite(floating, logits.device)
        demands.append(("the new state is not finite", whole))
    if state.weights:
        if "moved" not in state.notes:
            measure_step(state, before)
        state.note(distance=foreach.norm(list(state.weights.values()), minus=state.sources()) / _size(state))
        largest = torch.as_tensor(state.notes["moved"])
        demands.append((f"the step moved the weights by over {LARGEST_STEP:.0%}", largest <= LARGEST_STEP))
    return demands


def measure_step(state: State, before: Snapshot) -> None:
    """Note how far the step `moved` each set of weights at most, relative to the source's norm.

    Going back is no step: after a restart it is measured from the source, and a guard that goes back measures first.
    """
    sets = {"weights": list(state.weights.values())}
    sets |= {f"method.{twin}": list(tensors.values()) for twin, tensors in state.twins.items()}
    size, found = _size(state), list[Tensor]()
    for prefix, now in sets.items():
        earlier = state.sources() if state.restarted else [before.tensors[f"{prefix}.{name}"] for name in state.weights]
        found.append(foreach.norm(now, minus=earlier) / size)
    state.note(moved=torch.stack(found).max())


def _size(state: State) -> Tensor:
    """The norm of the source's weights, or the least that it is taken to be."""
    least = _LEAST_SIZE * sum(weight.numel() for weight in state.weights.values()) ** 0.5
    return foreach.norm(state.sources()).clamp_min(least)
