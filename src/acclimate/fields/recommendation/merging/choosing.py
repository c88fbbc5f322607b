"""Weights and members that are chosen on validation rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.core.config import one_of
from acclimate.fields.recommendation.merging.how import HOW, WEIGHTED, merge_logits

__all__ = ["fit_weights", "greedy"]

_ROUNDS = 200


def fit_weights(logits: Tensor, labels: Tensor, how: str = "logit_mean") -> Tensor:
    """The weights of sum 1, none below nought, with the least log loss, float64 `[M]`.

    Log loss is convex in them either way. Exponentiated gradient steps with a halving line search, from equal weights.

    Arguments: `logits`, `[M, N]` of validation rows; `labels`, `[N]`, 0 and 1; `how`, a way that takes weights.

    Raises ValueError for other shapes, labels or ways, or logits that are not finite.
    """
    one_of(*WEIGHTED, how=how)
    z, y = _checked(logits, labels)
    weights = z.new_full((len(z),), 1 / len(z))
    rate = 1.0
    loss, slope = _slope(z, y, how, weights)
    for _ in range(_ROUNDS):
        step = (weights.log() - rate * (slope - slope.mean())).softmax(0).clamp_min(1e-12)
        found, next_slope = _slope(z, y, how, step)
        if found <= loss:
            done = float(loss - found) < 1e-12 and rate >= 1.0
            weights, loss, slope, rate = step, found, next_slope, rate * 2
            if done:
                break
        elif rate < 1e-6:
            break
        else:
            rate /= 4
    return weights / weights.sum()


def _slope(z: Tensor, y: Tensor, how: str, weights: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = weights.detach().requires_grad_()
        loss = F.binary_cross_entropy_with_logits(merge_logits(z, how, leaf), y)
        (slope,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), slope


def greedy(
    logits: Tensor,
    labels: Tensor,
    *,
    costs: Sequence[float] | None = None,
    budget: float | None = None,
    how: str = "logit_mean",
) -> list[int]:
    """Members, each the one whose merging with those before it has the least log loss; ends where none is better.

    Arguments: `logits`, `[M, N]` of validation rows; `labels`, `[N]`, 0 and 1; `costs` of members, in any unit, and the
    `budget` that their sum must not pass; `how`, one of `HOW`.

    A budget is kept but for one part in a billion, which sums of costs such as 0.1 and 0.2 need.

    Raises ValueError for other shapes, labels or budgets, for logits that are not finite, or where no member fits the
    budget.
    """
    one_of(*HOW, how=how)
    z, y = _checked(logits, labels)
    spent = list(costs) if costs is not None else [1.0] * len(z)
    if len(spent) != len(z) or not all(0 < each < float("inf") for each in spent):
        raise ValueError(f"found costs {spent} for {len(z)} members, expected a finite number above 0 for each.")
    limit = float("inf") if budget is None else budget
    if not limit > 0:
        raise ValueError(f"the budget is {budget}, expected a number above 0, in the unit of the costs.")
    limit *= 1 + 1e-9
    chosen: list[int] = []
    least = float("inf")
    while True:
        used = sum(spent[each] for each in chosen)
        open_to = [each for each in range(len(z)) if each not in chosen and used + spent[each] <= limit]
        losses = {each: _loss(z[[*chosen, each]], y, how) for each in open_to}
        best = min(losses, key=lambda each: losses[each], default=None)
        if best is None or losses[best] >= least:
            break
        least = losses[best]
        chosen.append(best)
    if not chosen:
        raise ValueError(f"the budget is {budget} and the cheapest member costs {min(spent)}. Raise the budget.")
    return chosen


def _loss(z: Tensor, y: Tensor, how: str) -> float:
    return float(F.binary_cross_entropy_with_logits(merge_logits(z, how), y))


def _checked(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if logits.ndim != 2 or not len(logits) or labels.shape != logits.shape[1:] or not logits.shape[1]:
        raise ValueError(f"found logits {list(logits.shape)} and labels {list(labels.shape)}, expected [M, N] and [N].")
    if not bool(logits.isfinite().all()):
        raise ValueError(
            f"the logits of member {int((~logits.isfinite().all(1)).nonzero()[0, 0])} are not all finite. Leave it out."
        )
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError(f"found labels from {labels.min()} to {labels.max()}, expected 0 and 1 alone.")
    return logits.double(), labels.double()
