"""Which answers to learn from: sure ones, and not all of the same kind."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.core.state import State
from acclimate.functional import entropy

__all__ = [
    "check_rows",
    "declare_mean_prediction",
    "reliable_and_diverse",
    "share_of_log_classes",
    "update_mean_prediction",
]

_MOMENTUM = 0.1


def declare_mean_prediction(state: State, classes: int | None, *, uniform: bool = False) -> Tensor:
    """Keep a moving mean of predictions, `[C]`; at first uniform, or all zeros while it is unknown."""
    count = state.classes(classes)
    start, weight = (1 / count if uniform else 0.0), next(iter(state.weights.values()))
    wide = torch.promote_types(weight.dtype, torch.float32)
    mean = torch.full((count,), start, dtype=wide, device=weight.device)
    return state.declare("mean_prediction", mean, initial=start)


def update_mean_prediction(state: State, predictions: Tensor) -> None:
    """`mean <- 0.9 mean + 0.1 mean_b p_b`, over all rows."""
    state["mean_prediction"].lerp_(predictions.mean(0).to(state["mean_prediction"].dtype), _MOMENTUM)


def check_rows(logits: Tensor) -> None:
    """ValueError unless each row has one prediction: `[N, C]`."""
    if logits.ndim != 2:
        raise ValueError(
            f"rows are chosen by one prediction each: found logits {list(logits.shape)}, expected [N, C]; choose a "
            "method that takes label maps, such as tent or surgeon."
        )


def share_of_log_classes(share: float, logits: Tensor) -> float:
    """`share * ln C`, for logits `[N, C]`."""
    check_rows(logits)
    return share * math.log(logits.shape[1])


@torch.no_grad()
def reliable_and_diverse(state: State, logits: Tensor, margin: float, diversity: float) -> tuple[Tensor, Tensor]:
    """EATA's choice of rows, and their weights `exp(E0 - H)`: two of `[N]`.

    A row is chosen if its entropy is below `E0 = margin * ln C` and the cosine between its prediction and
    the moving mean of chosen predictions (as it was before this batch) is below `diversity`.
    """
    limit = share_of_log_classes(margin, logits)
    doubt, mean = entropy(logits), state["mean_prediction"]
    predictions = logits.to(mean.dtype).softmax(1)
    chosen = (doubt < limit) & (F.cosine_similarity(mean[None], predictions, dim=1) < diversity)
    share = chosen.to(mean.dtype)
    batch_mean = (predictions * share[:, None]).sum(0) / share.sum().clamp_min(1)
    known, any_chosen = mean.sum() > 0, chosen.any()
    updated = torch.where(known, torch.lerp(mean, batch_mean, _MOMENTUM), batch_mean)
    mean.copy_(torch.where(any_chosen, updated, mean))
    return chosen, torch.exp(limit - doubt)
