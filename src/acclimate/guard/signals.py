"""What logits tell without labels: pure functions of one or two sets of logits `[n, C, ...]`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from acclimate.functional import entropy

__all__ = ["agreement", "belief", "concentration", "flat", "flip_rate", "sureness"]


def flat(logits: Tensor) -> Tensor:
    """`[n, C, ...] -> [n * positions, C]`, in at least float32."""
    rows = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def agreement(logits: Tensor, others: Tensor) -> tuple[float, float]:
    """Of answers and of beliefs: the share of rows with the same label, and the mean of `sum_c p_c q_c`."""
    first, second = flat(logits), flat(others)
    labels = (first.argmax(1) == second.argmax(1)).to(first.dtype).mean()
    beliefs = (first.softmax(1) * second.softmax(1)).sum(1).mean()
    return float(labels), float(beliefs)


def belief(logits: Tensor, others: Tensor) -> float:
    """The mean probability that the first gives to the labels of the second."""
    labels = flat(others).argmax(1, keepdim=True)
    return float(flat(logits).softmax(1).gather(1, labels).mean())


def flip_rate(logits: Tensor, others: Tensor) -> float:
    """The share of rows that the two name differently."""
    return 1.0 - agreement(logits, others)[0]


def sureness(logits: Tensor) -> float:
    """`1 - mean_b H(p_b) / log C`: 1 where every answer is certain, 0 where none says anything."""
    rows = flat(logits)
    return 1.0 - float(entropy(rows).mean()) / math.log(rows.shape[1])


def concentration(logits: Tensor) -> float:
    """`1 - H(mean_b p_b) / log C`: 1 where all answers are one class, 0 where all classes come alike."""
    mean = flat(logits).softmax(1).mean(0, keepdim=True)
    return 1.0 - float(-torch.special.xlogy(mean, mean).sum()) / math.log(mean.shape[1])
