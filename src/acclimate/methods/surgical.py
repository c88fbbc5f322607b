"""Surgical: adapt the first stage of a residual network only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from acclimate.anatomy import Selector, first_stage
from acclimate.core.config import at_least, between, positive
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.optimizers import OptimizerFactory, moments
from acclimate.core.state import State
from acclimate.parts.agreement import View, sure_and_agreeing
from acclimate.parts.views import Views, check_images, check_views

__all__ = ["Surgical"]


@methods.register("surgical")
@dataclass(frozen=True, kw_only=True)
class Surgical(Method):
    """Adapt only convolutions and norms of the first stage of blocks: shifts of the input's look are undone early.

    `L = mean_{H_b < H0} H_b + consistency mean_b CE(z -> z_view)` with `H0 = margin ln C`, and one step of a
    persistent optimiser. Unsupervised and continual, as later papers compare with it; the original fine-tunes
    with labels.

    Arguments: `learning_rate` > 0 (published 1e-3 for CIFAR, 5e-4 for ImageNet, with SGD of Nesterov momentum 0.9);
    `margin` in [0, 1] of ln C, published 0.4; `consistency` >= 0, published 0.01 (0 leaves the view out);
    `optimizer`, a name or a factory; `views`, the augmentation; `select`, which parameters adapt: by default those in
    the first stage of blocks, without the stem before it.

    Cost: two forwards (one with `consistency=0`) and one backward; weights and one momentum of the first stage.
    Raises ValueError if the model has no repeated blocks and `select` is not given, or if views are wanted of inputs
    outside [0, 1].
    Source: Lee et al., Surgical Fine-Tuning Improves Adaptation to Distribution Shifts, ICLR 2023; the loss and
    settings are those of the comparison in Maharana et al., AAAI 2025.
    Fails when the shift is not in the look of the input but in what the classes are, on small batches and
    label-correlated streams.

    Example: `acclimate.adapt(net, "surgical:imagenet")`.
    """

    card: ClassVar[Card] = Card(
        summary="minimises entropy and disagreement through the first stage of blocks",
        paper="Lee et al., ICLR 2023, arXiv 2210.11466",
        needs=frozenset({"residual blocks", "convolution or norm", "backward", "augmentation"}),
        batch_of_one="layer and group norm only",
        fails_when="the shift is not in the look of the input, batches are small or labels are correlated",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cifar": {}, "imagenet": {"learning_rate": 5e-4}}
    learning_rate: float = 1e-3
    margin: float = 0.4
    consistency: float = 0.01
    optimizer: OptimizerFactory = "sgd"
    views: View = Views()  # noqa: RUF009 (frozen)
    select: Selector = first_stage

    def check(self) -> None:
        positive(learning_rate=self.learning_rate)
        between(0, 1, margin=self.margin)
        at_least(0, consistency=self.consistency)
        check_views(views=self.views)

    def setup(self, state: State) -> None:
        state.adapt(self.select, "the first of several repeated blocks of convolutions or norms")
        state.generator("views")
        state.optimizer(self.optimizer, self.learning_rate)

    def step(self, state: State, x: Tensor) -> Tensor:
        if self.consistency > 0 and isinstance(self.views, Views):
            check_images("Surgical", x, state.extremes)
        return super().step(state, x)

    def loss(self, state: State, x: Tensor, logits: Tensor) -> Tensor:
        limit = self.margin * math.log(logits.shape[1])
        return sure_and_agreeing(state, x, logits, self.views, self.consistency, limit)

    def cost(self) -> Cost:
        views = int(self.consistency > 0)
        copies = {"weights": 1.0, "optimizer": moments(self.optimizer, dimensions=4)}
        return Cost(forwards=1 + views, backwards=1, bound=3 * (1 + views), copies=copies)
