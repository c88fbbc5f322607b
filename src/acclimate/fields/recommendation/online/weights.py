r"""Merging weights that are learned from labels as they come.

After labels y of rows with members' logits z, with the answer $a = \sum_m w_m z_m + b$ and $g = \sigma(a) - y$:

$w_m \propto w_m \exp(-\eta\,\overline{g z_m})$, then $w = (1 - \alpha) w + \alpha / M$, and $b = b - \beta\,\bar g$.

It is exponentiated gradient with a fixed share, so a member that was of no use for long comes back within
$\log(M / \alpha) / \eta$ units of evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from acclimate.core.config import at_least, between, whole
from acclimate.fields.recommendation.merging.merged import Merged
from acclimate.fields.recommendation.online.awaited import Awaited

__all__ = ["OnlineMerge"]


class OnlineMerge(nn.Module):
    """Answers by weights of now; learns them when labels come, from what members said at the time.

    Members, of one logit a row, stay as they are. Weights, bias and counts are buffers, so `state_dict` keeps all that
    was learned; they stay float64 whatever the members are turned into. Rows whose labels are still out are forgotten
    with the process, and tickets of another process are not known. It may be asked and told from several threads.

    A member whose logit is not finite is left out of that row's answer, and weights of the others are taken to sum 1;
    where none is finite the answer is NaN.

    Arguments:
        merged: by logits; its weights are the first ones.
        rate: eta, 0 or more, finite. 0 and a `bias_rate` of 0 is frozen merging.
        share: alpha, 0 to 1, what is given back to all members at each step.
        bias_rate: beta, 0 or more, finite; follows a change in the share that is clicked.
        remembered: rows whose labels are awaited at most; the oldest are forgotten beyond.

    Source: exponentiated gradient (Kivinen and Warmuth 1997), fixed share (Herbster and Warmuth 1998). The paper that
    merging is from has no online variant. It fails where labels that come late differ from those that come soon.
    """

    weights: Tensor
    bias: Tensor
    learned: Tensor

    def __init__(
        self,
        merged: Merged,
        *,
        rate: float = 1.0,
        share: float = 0.03,
        bias_rate: float = 0.1,
        remembered: int = 1_000_000,
    ) -> None:
        super().__init__()
        if merged.how != "logit_mean":
            raise ValueError(f"found a model merged by {merged.how}, expected logit_mean: merge([...]).")
        at_least(0.0, rate=rate, bias_rate=bias_rate)
        if math.isinf(rate) or math.isinf(bias_rate):
            raise ValueError(f"found rate={rate} and bias_rate={bias_rate}, expected finite numbers.")
        between(0.0, 1.0, share=share)
        whole(1, remembered=remembered)
        self.merged, self.rate, self.share, self.bias_rate = merged, rate, share, bias_rate
        weights = merged.weights.double()
        self.register_buffer("weights", weights / weights.sum())
        self.register_buffer("bias", torch.zeros_like(weights[0]))
        self.register_buffer("learned", torch.zeros((), dtype=torch.int64, device=weights.device))
        self._awaited = Awaited(remembered)

    @property
    def forgotten(self) -> int:
        """Rows whose labels came too late or not at all."""
        return self._awaited.forgotten

    @property
    def remembered(self) -> int:
        """Rows whose labels are awaited at most."""
        return self._awaited.most

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `[B]` by the weights of now; nothing is remembered."""
        return self.combine(self.merged.each(inputs))

    def combine(self, each: Tensor) -> Tensor:
        """Logits `[B]` of members' logits `[M, B]` or `[M, B, 1]`, by the weights of now."""
        z = self._flat(each)
        finite = z.isfinite()
        shares = self.weights[:, None] * finite
        shares = shares / shares.sum(0)
        return ((shares * z.masked_fill(~finite, 0.0)).sum(0) + self.bias).to(z.dtype)

    def _flat(self, each: Tensor) -> Tensor:
        z = each.squeeze(-1) if each.ndim == 3 and each.shape[-1] == 1 else each
        if z.ndim != 2 or len(z) != len(self.weights):
            raise ValueError(
                f"members' logits are {list(each.shape)}, expected [{len(self.weights)}, B] or [{len(self.weights)}, "
                "B, 1]: one logit a row from each."
            )
        return z

    @torch.no_grad()
    def ask(self, inputs: Tensor) -> tuple[Tensor, int]:
        """Logits `[B]`, and a ticket to bring the labels back with."""
        each = self._flat(self.merged.each(inputs))
        return self.combine(each), self._awaited.keep(each)

    def tell(self, ticket: int, labels: Tensor) -> bool:
        """Learn from the labels `[B]` of a ticket, 0 or 1, NaN where there is none; whether it is still known.

        ValueError for another number of labels or other ones; the ticket stays.
        """
        with self._awaited.lock:
            each = self._awaited.get(ticket)
            if each is None:
                return False
            self.learn(each, labels)
            self._awaited.drop(ticket)
        return True

    @torch.no_grad()
    def learn(self, each: Tensor, labels: Tensor) -> None:
        """One step on members' logits `[M, B]` or `[M, B, 1]` and labels `[B]`.

        Rows without a finite logit of all members, or whose label is NaN, teach nothing.
        """
        z = self._flat(each).double()
        labels = labels.to(z.device, torch.float64)
        known = ~labels.isnan()
        if labels.shape != z.shape[1:] or not bool(((labels == 0) | (labels == 1) | ~known).all()):
            raise ValueError(
                f"found labels {list(labels.shape)} for {z.shape[1]} rows, expected one a row: 0, 1, or NaN where "
                "it is not known."
            )
        known &= z.isfinite().all(0)
        z, y = z[:, known], labels[known]
        if not len(y):
            return
        with self._awaited.lock:
            wrong = (self.weights @ z + self.bias).sigmoid() - y
            steps = -self.rate * (z * wrong).mean(1)
            weights = (self.weights.log() + steps).softmax(0)
            # New tensors: one that answers meanwhile has the old weights or the new ones, never some of each.
            self.weights = (1 - self.share) * weights + self.share / len(weights)
            self.bias = self.bias - self.bias_rate * wrong.mean()
            self.learned = self.learned + len(y)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        kept = {name: getattr(self, name) for name in ("weights", "bias")}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            setattr(self, name, before.to(getattr(self, name).device))  # a member's type is not theirs
        return self
