r"""Merging weights that are learned from labels as they come.

After labels y of rows with members' logits z, with the answer $a = \sum_m w_m z_m + b$ and $g = \sigma(a) - y$:

$w_m \propto w_m \exp(-\eta\,\overline{g z_m})$, then $w = (1 - \alpha) w + \alpha / M$, and $b = b - \beta\,\bar g$.

It is exponentiated gradient with a fixed share, so a member that was of no use for long comes back within
$\log(M / \alpha) / \eta$ units of evidence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acclimate.core.config import at_least, between, whole
from acclimate.fields.recommendation.merging.merged import Merged

__all__ = ["OnlineMerge"]


class OnlineMerge(nn.Module):
    """Answers by weights of now; learns them when labels come, from what members said at the time.

    Members stay as they are. Weights, bias and counts are buffers, so `state_dict` keeps all that was learned; rows
    whose labels are still out are forgotten with the process.

    Arguments:
        merged: by logits; its weights are the first ones.
        rate: eta, 0 or more. 0 and a `bias_rate` of 0 is frozen merging.
        share: alpha, 0 to 1, what is given back to all members at each step.
        bias_rate: beta, 0 or more; follows a change in the share that is clicked.
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
        between(0.0, 1.0, share=share)
        whole(1, remembered=remembered)
        self.merged, self.rate, self.share, self.bias_rate = merged, rate, share, bias_rate
        self.remembered = remembered
        weights = merged.weights.double()
        self.register_buffer("weights", weights / weights.sum())
        self.register_buffer("bias", torch.zeros((), dtype=torch.float64))
        self.register_buffer("learned", torch.zeros((), dtype=torch.int64))
        self._waiting: dict[int, Tensor] = {}
        self._next = 0
        self.forgotten = 0
        """Rows whose labels came too late or not at all."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `[B]` by the weights of now; nothing is remembered."""
        return self.combine(self.merged.each(inputs))

    def combine(self, each: Tensor) -> Tensor:
        """Logits `[B]` of members' logits `[M, B]`, by the weights of now."""
        return self.weights.to(each) @ each + self.bias.to(each)

    @torch.no_grad()
    def ask(self, inputs: Tensor) -> tuple[Tensor, int]:
        """Logits `[B]`, and a ticket to bring the labels back with."""
        each = self.merged.each(inputs)
        ticket, self._next = self._next, self._next + 1
        self._waiting[ticket] = each
        while len(self._waiting) > 1 and sum(rows.shape[1] for rows in self._waiting.values()) > self.remembered:
            self.forgotten += self._waiting.pop(next(iter(self._waiting))).shape[1]
        return self.combine(each), ticket

    def tell(self, ticket: int, labels: Tensor) -> bool:
        """Learn from the labels `[B]` of a ticket, 0 or 1, NaN where there is none; whether it is still known.

        ValueError for another number of labels or other ones; the ticket stays.
        """
        each = self._waiting.get(ticket)
        if each is None:
            return False
        self.learn(each, labels)
        del self._waiting[ticket]
        return True

    @torch.no_grad()
    def learn(self, each: Tensor, labels: Tensor) -> None:
        """One step on members' logits `[M, B]` and labels `[B]`; rows without a finite logit of all members, or whose
        label is NaN, teach nothing."""
        labels = labels.to(each.device, torch.float64)
        known = ~labels.isnan()
        if labels.shape != each.shape[1:] or not bool(((labels == 0) | (labels == 1) | ~known).all()):
            raise ValueError(
                f"found labels {list(labels.shape)} for {each.shape[1]} rows, expected one a row: 0, 1, or NaN where "
                "it is not known."
            )
        z = each.double()
        known &= z.isfinite().all(0)
        z, y = z[:, known], labels[known]
        if not len(y):
            return
        wrong = (self.weights @ z + self.bias).sigmoid() - y
        steps = -self.rate * (z * wrong).mean(1)
        weights = (self.weights.log() + steps).softmax(0)
        self.weights.copy_((1 - self.share) * weights + self.share / len(weights))
        self.bias.sub_(self.bias_rate * wrong.mean())
        self.learned.add_(len(y))
