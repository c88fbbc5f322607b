"""How many answers are right, guessed without labels from how far two answers agree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from acclimate.core.config import between
from acclimate.guard.signals import concentration, flip_rate

__all__ = ["estimated_accuracy"]

_LEAST = 1e-6


@torch.no_grad()
def estimated_accuracy(logits: Tensor, other: Tensor, *, exponent: float = 3.0) -> float:
    """A guess of the share of right answers in a batch, in [0, 1].

    `1 - d (log K / H)^exponent`, no less than 0. `d = (n_d + 1/2) / (n + 1)` is the share of the `n` rows that two
    models answer differently (`n_d` of them; the halves keep a batch without any from proving that all are right). `H`
    is the entropy of the mean of `softmax(logits)` over the rows, `K = min(n, C)` the most classes that a batch can
    show, and `log K / H` counts as at least 1: answers that crowd into few classes weigh each disagreement up.

    Arguments: `logits` and `other`, `[n, C]` with n and C at least 2, finite, answers to the same rows by the adapting
    model and by another that errs on its own: the source, the model under dropout, or on a disturbed view; `exponent`
    in [0, 10]. ValueError for other shapes. Cost: the other model's forward; O(n C) and two host reads.

    A heuristic. The equality of error and disagreement holds for models trained alike (Jiang et al., ICLR 2022); that
    agreement follows accuracy under shift was seen by Baek et al. (NeurIPS 2022); dropout and the weight of
    concentration, exponent 3, are AETTA's (Lee et al., CVPR 2024); the halves and `K` are this project's. Fails when
    both are wrong alike (two models that share weights), when the stream itself holds few classes (label-sorted), and
    on batches so small that they cannot show their classes: compare it with itself over time, not with an accuracy.

    >>> answers = 20 * torch.eye(10).repeat(20, 1)
    >>> round(estimated_accuracy(answers, answers), 3)
    0.998
    >>> collapsed = 20 * torch.eye(10)[:1].repeat(200, 1)
    >>> estimated_accuracy(collapsed, collapsed)
    0.0
    """
    between(0, 10, exponent=exponent)
    if logits.shape != other.shape or logits.ndim != 2 or min(logits.shape) < 2:
        raise ValueError(
            f"found logits {list(logits.shape)} and {list(other.shape)}, expected [n, C] twice, n and C at least 2. "
            "Pass the answers of two models to the same rows."
        )
    rows, classes = logits.shape
    differing = (flip_rate(logits, other) * rows + 0.5) / (rows + 1)
    spread = (1 - concentration(logits)) * math.log(classes) / math.log(min(rows, classes))
    return max(0.0, 1 - differing * min(max(spread, _LEAST), 1.0) ** -exponent)
