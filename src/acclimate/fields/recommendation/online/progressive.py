"""Progressive validation: every row is answered before its label is known, and labels come late."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.fields.recommendation.online.weights import OnlineMerge

__all__ = ["Progress", "progressive"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Attributes: `logits`, the answers, `[N]`; `weights`, those that each was given by, `[N, M]`."""

    logits: Tensor
    weights: Tensor


@torch.no_grad()
def progressive(online: OnlineMerge, each: Tensor, labels: Tensor, *, delay: int, batch_size: int = 64) -> Progress:
    """Answer a stream in its order.

    Batch by batch: the labels of rows that were answered `delay` rows ago or longer are learned from, then the batch is
    answered. No answer depends on a label that is not out by then.

    Arguments: `each`, members' logits `[M, N]`; `labels`, `[N]`; `delay`, rows between an answer and its label, 0 or
    more; `batch_size`, rows that are answered, and learned from, at once.
    """
    whole(0, delay=delay)
    whole(1, batch_size=batch_size)
    if each.ndim != 2 or labels.shape != each.shape[1:]:
        raise ValueError(f"found logits {list(each.shape)} and labels {list(labels.shape)}, expected [M, N] and [N].")
    waiting: deque[tuple[int, int]] = deque()
    answered: list[Tensor] = []
    weights: list[Tensor] = []
    for start in range(0, each.shape[1], batch_size):
        while waiting and waiting[0][1] + delay <= start:
            first, end = waiting.popleft()
            online.learn(each[:, first:end], labels[first:end])
        part = each[:, start : start + batch_size]
        answered.append(online.combine(part))
        weights.append(online.weights.expand(part.shape[1], -1).clone())
        waiting.append((start, start + part.shape[1]))
    return Progress(torch.cat(answered), torch.cat(weights))
