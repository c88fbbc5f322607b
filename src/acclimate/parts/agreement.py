"""The loss that PALM, LAW and Surgical share: be sure, and answer a random view alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from acclimate import functional
from acclimate.core.state import State
from acclimate.parts.views import Views

__all__ = ["View", "check_alignment", "sure_and_agreeing"]

View = Callable[[Tensor, torch.Generator], Tensor]
"""Makes a random view of a batch with a generator: `Views()`, or a function of the user's."""


def sure_and_agreeing(
    state: State, x: Tensor, logits: Tensor, views: View, weight: float, limit: float | None = None
) -> Tensor:
    """`mean_b H_b + weight mean_b CE(z -> z_view)`, one forward more; weight 0 leaves the view and its forward out.

    With a limit, entropies are averaged over the rows strictly below it, and are exactly 0 if there is none; a batch
    that then has nothing else to learn from changes nothing. Neither side of the agreement is detached.
    """
    doubt = functional.entropy(logits)
    loss = doubt.mean()
    if limit is not None:
        sure = doubt < limit
        loss = functional.filtered_mean(doubt, sure)
        state.note(low_entropy=sure.sum())
        if not weight:
            state.learn_if(sure.any(), "no answer was sure enough")
    if weight:
        check_alignment(views, logits)
        view = state.forward(views(x, state.generator("views")), answering=False)
        agreement = functional.consistency(logits, view).mean()
        state.note(consistency=agreement)
        loss = loss + weight * agreement
    state.note(loss=loss)
    return loss


def check_alignment(views: View, logits: Tensor) -> None:
    """ValueError where answers for single pixels would be compared with those of pixels that a view has moved."""
    if isinstance(views, Views) and logits.ndim != 2:
        raise ValueError(
            f"the views turn and shift images, so with logits {list(logits.shape)} other pixels would be compared; "
            "expected [N, C]. Pass views= that keep pixels in place, or leave the view out."
        )
