"""The first step of a fresh Adam, which is what a method takes that builds its optimiser anew for each batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from acclimate.core import foreach

__all__ = ["sign_step"]


@torch.no_grad()
def sign_step(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    learning_rate: float,
    rates: Sequence[Tensor] | None = None,
    weight_decay: float = 0.0,
) -> None:
    """`theta <- theta - learning_rate r g / (|g| + 1e-8)` for each tensor, in place, without a host read.

    From zero state the bias corrections of Adam cancel, so each element moves by about its rate whatever the size of
    its gradient. `rates` are factors r: a number on the device for each tensor, or one for each element.
    `weight_decay` is coupled, `g <- g + weight_decay theta`; a tensor of rate 0 stays as it is even so.
    """
    wide = [g.float() if g.dtype in (torch.float16, torch.bfloat16) else g for g in gradients]  # 1e-8 is 0 in float16
    if weight_decay:
        wide = foreach.add(wide, weights, weight_decay)
    steps = foreach.divide(wide, foreach.add(foreach.absolute(wide), 1e-8))
    if rates is not None:
        steps = foreach.multiply(steps, rates)
    foreach.subtract(weights, steps, learning_rate)
