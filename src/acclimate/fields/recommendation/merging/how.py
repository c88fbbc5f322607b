r"""Ways to merge logits.

Logits of M members are `[M, B]` or `[M, B, 1, ...]` for clicks, `[M, B, C, ...]` for C classes; w are weights of sum
1.

* `logit_mean`: $\sum_m w_m z_m$, the published way.
* `prob_mean`: the logits of $\sum_m w_m p_m$: $\log p - \log(1 - p)$ for clicks, $\log p_c$ for classes.
* `median`, `max`, `min`, of each number, without weights: controls, which the paper does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["HOW", "WEIGHTED", "checked_weights", "merge_logits", "shares"]


def merge_logits(stacked: Tensor, how: str = "logit_mean", weights: Tensor | None = None) -> Tensor:
    """One set of logits of M.

    Arguments: `stacked`, as above; `how`, one of `HOW`; `weights`, `[M]`, none below nought
    and of sum 1, equal ones by default.

    >>> float(merge_logits(torch.tensor([[1.0], [3.0]])))
    2.0
    """
    count = len(stacked)
    if weights is None:
        weights = stacked.new_full((count,), 1.0 / count)
    return HOW[how](stacked, weights.to(stacked).view(-1, *[1] * (stacked.ndim - 1)))


def checked_weights(weights: Sequence[float] | Tensor | None, how: str, count: int) -> Tensor:
    """Weights `[M]` of sum 1, float32, equal ones for None. ValueError as in `shares`, and for a way without."""
    if weights is not None and how not in WEIGHTED:
        raise ValueError(f"{how} takes no weights; choose one of {', '.join(WEIGHTED)}, or leave them out.")
    return shares(torch.ones(count) if weights is None else torch.as_tensor(weights, dtype=torch.float32), count)


def shares(weights: Tensor, count: int) -> Tensor:
    """Weights `[M]` of sum 1. ValueError for another number, numbers below nought or not finite, or all nought."""
    if (
        weights.shape != (count,)
        or not bool(weights.isfinite().all())
        or bool((weights < 0).any())
        or not weights.sum()
    ):
        raise ValueError(
            f"found weights {weights.tolist()} for {count} members, expected {count} finite numbers, none below 0 and "
            "not all 0."
        )
    return weights / weights.sum()


def _logit_mean(stacked: Tensor, weights: Tensor) -> Tensor:
    return (stacked * weights).sum(0)


def _prob_mean(stacked: Tensor, weights: Tensor) -> Tensor:
    logs = weights.log()  # of weight 0: -inf, which logsumexp leaves out
    if stacked.ndim > 2 and stacked.shape[2] > 1:
        return torch.logsumexp(F.log_softmax(stacked, 2) + logs, 0)
    return torch.logsumexp(F.logsigmoid(stacked) + logs, 0) - torch.logsumexp(F.logsigmoid(-stacked) + logs, 0)


def _median(stacked: Tensor, _: Tensor) -> Tensor:
    ordered = stacked.sort(0).values  # quantile takes neither half precision nor many numbers
    middle = ordered[(len(stacked) - 1) // 2] / 2 + ordered[len(stacked) // 2] / 2
    return middle.masked_fill(stacked.isnan().any(0), float("nan"))


HOW: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logit_mean": _logit_mean,
    "prob_mean": _prob_mean,
    "median": _median,
    "max": lambda stacked, _: stacked.amax(0),
    "min": lambda stacked, _: stacked.amin(0),
}
"""By name."""

WEIGHTED = ("logit_mean", "prob_mean")
"""Those that take weights."""
