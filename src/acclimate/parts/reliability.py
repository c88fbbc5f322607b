"""Which answers to learn from: sure ones, and not all of the same kind."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.anatomy import class_count
from acclimate.core.state import State
from acclimate.functional import entropy

__all__ = ["declare_mean_prediction", "reliable_and_diverse"]

_MOMENTUM = 0.1


def declare_mean_prediction(state: State) -> None:
    """Keep a moving mean of the selected predictions, `[C]`; all zeros while it is unknown."""
    weight = next(iter(state.weights.values()))
    mean = torch.zeros(class_count(state.model), device=weight.device)
    state.declare("mean_prediction", mean, initial=0.0)


@torch.no_grad()
def reliable_and_diverse(state: State, logits: Tensor, margin: float, diversity: float) -> tuple[Tensor, Tensor]:
    """EATA's choice of rows, and their weights `exp(E0 - H)`: two of `[N]`.

    A row is chosen if its entropy is below `E0 = margin * ln C` and the cosine between its prediction and
    the moving mean of chosen predictions (as it was before this batch) is below `diversity`.
    """
    if logits.ndim != 2:
        raise ValueError(f"rows are chosen by one prediction each: found logits {list(logits.shape)}, expected [N, C].")
    limit = margin * math.log(logits.shape[1])
    doubt = entropy(logits)
    predictions = logits.float().softmax(1)
    mean = state["mean_prediction"]
    chosen = (doubt < limit) & (F.cosine_similarity(mean[None], predictions, dim=1) < diversity)
    share = chosen.float()
    batch_mean = (predictions * share[:, None]).sum(0) / share.sum().clamp_min(1)
    known, any_chosen = mean.sum() > 0, chosen.any()
    updated = torch.where(known, torch.lerp(mean, batch_mean, _MOMENTUM), batch_mean)
    mean.copy_(torch.where(any_chosen, updated, mean))
    return chosen, torch.exp(limit - doubt)
