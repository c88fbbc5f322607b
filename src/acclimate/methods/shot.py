"""SHOT, online: sure and diverse answers through the feature extractor, under a fixed classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.anatomy import affine_norms, all_but_head
from acclimate.core.config import at_least, between, one_of, positive
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.optimizers import OptimizerFactory, moments
from acclimate.core.state import State
from acclimate.functional import entropy, filtered_mean
from acclimate.parts.features import require_head

__all__ = ["SHOT"]


@methods.register("shot")
@dataclass(frozen=True, kw_only=True)
class SHOT(Method):
    """Learn the feature extractor so that answers are sure, of many classes, and true to their own sure labels.

    `L = entropy_weight (mean_b H_b + sum_c q_c log(q_c + 1e-5)) + label_weight mean_S CE(z_b, argmax z_b)`, q the mean
    prediction of the batch and S the rows with `max p > threshold` (no such row: no such term). The classifier stays
    fixed: what is learned is to bring features to it. The answer precedes the update.

    Arguments: `learning_rate` > 0 (published sweep 5e-3, 1e-3, 5e-4); `optimizer`, and `momentum` in [0, 1) if it is
    "sgd" (above 0 with Nesterov's step); `label_weight` >= 0; `entropy_weight` >= 0; `threshold` in [0, 1];
    `adapts` "extractor", everything but the last linear layer, or "norms", normalisation weights and biases.

    Cost: one forward, one backward; what adapts, and what the optimiser keeps of it.
    Raises ValueError for a model without a linear layer.
    Source: Liang et al., ICML 2020, whose method is offline (ten epochs, labels by clusters); this is the one-pass form
    of later benchmarks. `shot:im` is the information maximisation alone, as in LAME's comparison.
    Fails on small batches and on batches of few classes, whose mean prediction should not be diverse; sure errors
    are learned by heart.

    Example: `acclimate.adapt(net, "shot:im")`.
    """

    card: ClassVar[Card] = Card(
        summary="makes answers sure and diverse through the feature extractor",
        paper="Liang et al., ICML 2020",
        needs=frozenset({"linear head", "backward"}),
        batch_of_one="no: nothing is diverse about one answer",
        fails_when="batches are small or of few classes",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "office-home": {"label_weight": 0.1, "optimizer": "adam"},
        "im": {"label_weight": 0.0, "momentum": 0.0, "adapts": "norms"},
    }
    learning_rate: float = 1e-3
    optimizer: OptimizerFactory = "sgd"
    momentum: float = 0.9
    entropy_weight: float = 1.0
    label_weight: float = 0.3
    threshold: float = 0.9
    adapts: str = "extractor"

    def check(self) -> None:
        positive(learning_rate=self.learning_rate)
        at_least(0, entropy_weight=self.entropy_weight, label_weight=self.label_weight)
        between(0, 1, threshold=self.threshold, momentum=self.momentum)
        if self.momentum == 1:
            raise ValueError("momentum must be below 1, found 1.")
        one_of("extractor", "norms", adapts=self.adapts)

    def setup(self, state: State) -> None:
        require_head(state)
        if self.adapts == "norms":
            state.adapt(affine_norms, "normalisation weights and biases")
        else:
            state.adapt(all_but_head, "weights before the last linear layer")
        options = {"momentum": self.momentum, "nesterov": self.momentum > 0} if self._is_sgd() else {}
        state.optimizer(self.optimizer, self.learning_rate, **options)

    def loss(self, state: State, x: Tensor, logits: Tensor) -> Tensor:
        rows = logits.movedim(1, -1).flatten(0, -2).to(torch.promote_types(logits.dtype, torch.float32))
        p = rows.softmax(1)
        mean = p.mean(0)
        surest = p.detach().max(1)
        sure = surest.values > self.threshold
        labels = filtered_mean(F.cross_entropy(rows, surest.indices, reduction="none"), sure)
        information = entropy(rows).mean() + (mean * (mean + 1e-5).log()).sum()
        state.note(selected=sure.sum(), information=information)
        return self.entropy_weight * information + self.label_weight * labels

    def _is_sgd(self) -> bool:
        return str(self.optimizer).lower() == "sgd"

    def cost(self) -> Cost:
        kept = 0 if self._is_sgd() and self.momentum == 0 else moments(self.optimizer)
        bound = 2 if self.adapts == "norms" else 3
        return Cost(forwards=1, backwards=1, bound=bound, copies={"weights": 1, "optimizer": kept})
