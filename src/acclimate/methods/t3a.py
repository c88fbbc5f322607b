"""T3A: replace the classifier by the mean of sure features, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.core.config import whole
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.normalization import Normalization
from acclimate.core.state import State
from acclimate.functional import entropy
from acclimate.parts.features import encode, require_head, rows_of_head, unit

__all__ = ["T3A"]

_NOTHING = 1e9  # the entropy of an empty place: state is finite


@methods.register("t3a")
@dataclass(frozen=True, kw_only=True)
class T3A(Method):
    """Classify by prototypes: for each class, the mean direction of the features that were surest to be of it.

    Each input leaves its feature h, its label `argmax z` and its entropy; the rows of the linear head count as
    features too. Of each label the Q surest are supports. With every support at length 1,
    `c_k = sum of the supports of class k`, and the answer is `h . c_k / |c_k|` (h as it is, no bias). The batch
    counts before it is answered. A class that no support has, not even its own row, keeps its row.

    Argument: `filter_size` Q >= 1, supports of each class (published grid 1, 5, 20, 50, 100 and no limit). Without a
    limit memory would grow with the stream, so there is always one: a Q as long as the stream is the same.

    Cost: one forward; C Q (D + 1) numbers (Q = 100 for a ResNet-50: 820 MB, and once more for undoing a step).
    Raises ValueError if there is no linear layer that is fed one vector for each input.
    Source: Iwasawa and Matsuo, NeurIPS 2021: eval mode with the source's statistics; `t3a:batch` uses those of the
    batch. The released code drops a support of each class in every step where no limit is asked for, and
    answers 0 for a class without supports; neither is done here.
    Fails when wrong answers are sure, and keeps for good what it learned in domains that are over.

    Example: `acclimate.adapt(net, "t3a")`.
    """

    card: ClassVar[Card] = Card(
        summary="replaces the classifier by means of the surest features of each class",
        paper="Iwasawa and Matsuo, NeurIPS 2021",
        needs=frozenset({"linear head"}),
        fails_when="wrong answers are sure, or domains change",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"filter_size": 5},
        "batch": {"normalization": "batch"},
    }
    normalization: str | Normalization = "source"
    filter_size: int = 100

    def check(self) -> None:
        whole(1, filter_size=self.filter_size)

    def setup(self, state: State) -> None:
        rows = unit(require_head(state).weight)
        places = rows.new_full((len(rows), self.filter_size), _NOTHING)
        supports = rows.new_zeros(*places.shape, rows.shape[1])
        state.declare("supports", supports, initial=0.0, kind="memory", merge="first")
        state.declare("entropies", places, initial=_NOTHING, kind="memory", merge="first")

    def step(self, state: State, x: Tensor) -> Tensor:
        return self._answer(state, x, learn=True)

    def respond(self, state: State, x: Tensor) -> Tensor:
        return self._answer(state, x, learn=False)

    def plain(self) -> bool:
        return False

    @torch.no_grad()
    def _answer(self, state: State, x: Tensor, *, learn: bool) -> Tensor:
        found, logits = encode(state, x)
        rows_of_head(state, found, logits)
        with torch.autocast(x.device.type, enabled=False):
            if learn:
                self._remember(state, unit(found), logits)
            centres = self._centres(state)
            return (found.to(centres.dtype) @ centres.T).to(logits.dtype)

    def _remember(self, state: State, rows: Tensor, logits: Tensor) -> None:
        """Of the supports so far and the batch's features, keep the Q surest of each label."""
        supports, entropies = state["supports"], state["entropies"]
        doubt = _of_own_class(entropy(logits).to(entropies.dtype), logits.argmax(1), len(entropies))
        kept, index = torch.cat([entropies, doubt], 1).topk(self.filter_size, 1, largest=False)
        start = torch.arange(len(entropies), device=rows.device)[:, None] * self.filter_size
        index = torch.where(index < self.filter_size, start + index, index + entropies.numel() - self.filter_size)
        supports.copy_(torch.cat([supports.flatten(0, 1), rows])[index])
        entropies.copy_(kept)

    def _centres(self, state: State) -> Tensor:
        """Unit prototypes `[C, D]` of the Q surest among remembered features and rows of the head."""
        head, supports, entropies = require_head(state), state["supports"], state["entropies"]
        bias = None if head.bias is None else head.bias.to(supports.dtype)  # pyright: ignore[reportUnnecessaryComparison]
        weight = head.weight.to(supports.dtype)
        own = F.linear(weight, weight, bias)
        doubt = torch.cat([entropies, _of_own_class(entropy(own), own.argmax(1), len(own))], 1)
        limit = doubt.kthvalue(self.filter_size, 1, keepdim=True).values
        chosen = (doubt <= limit) & (doubt < _NOTHING)
        share, rows = chosen.to(supports.dtype), unit(weight)
        centres = (share[:, None, : self.filter_size] @ supports)[:, 0] + share[:, self.filter_size :] @ rows
        return unit(torch.where(chosen.any(1, keepdim=True), centres, rows))

    def cost(self) -> Cost:
        memory = {"class feature": self.filter_size, "class": self.filter_size}
        return Cost(forwards=1, backwards=0, bound=1, memory=memory)


def _of_own_class(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """`[N]` to `[C, N]`: each value in the row of its label, nothing elsewhere."""
    return torch.where(labels == torch.arange(classes, device=labels.device)[:, None], values, _NOTHING)
