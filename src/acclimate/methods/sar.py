"""SAR: learn from sure answers at the worst nearby weights, and start over when the model collapses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.anatomy import Selector, shallow_norms
from acclimate.core.config import between, positive, whole_or_none
from acclimate.core.method import Card, Cost, methods
from acclimate.core.optimizers import OptimizerFactory
from acclimate.core.state import State
from acclimate.functional import entropy, filtered_mean
from acclimate.parts.affine import AffineMethod, scale_rate
from acclimate.parts.reliability import share_of_log_classes
from acclimate.parts.selective import answer, declare_share, forward_rows, rows_to_learn, with_graph
from acclimate.parts.sharpness import perturbed

__all__ = ["SAR"]

_UNSET = -1.0
_RECOVERY = 0.2 / math.log(1000)  # published: 0.2 nats, for 1000 classes


@methods.register("sar")
@dataclass(frozen=True, kw_only=True)
class SAR(AffineMethod):
    """Minimise the entropy of sure answers at the weights where it is worst nearby; forget all when it collapses.

    On the rows with `H_b < E0 = margin ln C`: `g = grad mean H`, then at `theta + radius g / ||g||` on those of them
    that are still below E0, `L = mean H'`; its gradient steps theta. The answer is that of the unperturbed weights.
    `m <- 0.9 m + 0.1 L`; when `m < recovery ln C` the model answers nearly everything with certainty: it restarts
    from the source, m unset. That is decided when the next batch comes (frozen answers until then are the old ones).

    Arguments: `margin` in [0, 1] of ln C (published 0.4); `radius` > 0 (published 0.05); `recovery` in [0, 1] of
    ln C: the published 0.2 nats for 1000 classes is 0.029 ln C, which for ten classes are 0.067 nats; 0 never
    restarts; `learning_rate` > 0, published 2.5e-4 for ResNet-50, 1e-3 for ViT; `full_batch` >= 1 or None:
    smaller batches step at b / full_batch of the rate, single rows at twice that (published: 32 for ResNet-50, 64
    for ViT); `optimizer` ("sgd" has Nesterov momentum 0.9, the released code plain momentum); `select`, which
    parameters adapt: by default norms before the last stage of blocks, told by structure and not by layer names.

    Cost: two forwards, two backwards; without batch statistics one forward, and two forwards and backwards over the
    sure rows only. Weights, the optimiser's copies and two numbers; on an accelerator one host read more.
    Raises ValueError for a model without such normalisation parameters, or logits that are not [N, C].
    Source: Niu et al., ICLR 2023. Their code keeps m after a restart, so that restarts repeat; here it starts anew.
    Fails on batch norms with small, sorted or mixed batches, whose statistics no step repairs.

    Example: `acclimate.adapt(net, "sar:vit")`.
    """

    card: ClassVar[Card] = Card(
        summary="minimises entropy of sure answers at perturbed weights, and restarts after a collapse",
        paper="Niu et al., ICLR 2023",
        needs=frozenset({"norm", "backward"}),
        batch_of_one="layer and group norm only; set full_batch",
        fails_when="batch statistics are bad: batches small, sorted or of mixed domains",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {},
        "imagenet": {"learning_rate": 2.5e-4, "full_batch": 32},
        "vit": {"full_batch": 64},
    }
    optimizer: OptimizerFactory = "sgd"
    select: Selector = shallow_norms
    margin: float = 0.4
    radius: float = 0.05
    recovery: float = _RECOVERY
    full_batch: int | None = None

    def check(self) -> None:
        super().check()
        positive(radius=self.radius)
        between(0, 1, margin=self.margin, recovery=self.recovery)
        whole_or_none(1, full_batch=self.full_batch)

    def setup(self, state: State) -> None:
        super().setup(state)
        declare_share(state)
        weight = next(iter(state.weights.values()))
        wide = torch.promote_types(weight.dtype, torch.float32)
        state.declare("mean_loss", torch.full((), _UNSET, dtype=wide, device=weight.device), initial=_UNSET)

    def step(self, state: State, x: Tensor) -> Tensor:
        if 0 <= float(state["mean_loss"]) < self.recovery:
            state.restart()
        scale_rate(state, self.learning_rate, len(x), self.full_batch)
        logits = answer(state, x)
        limit = share_of_log_classes(self.margin, logits)
        sure = entropy(logits.detach()) < limit
        state.learn_if(sure.any(), "no answer was sure enough")
        state.note(selected=sure.sum())
        rows = rows_to_learn(state, sure)
        if rows is not None:
            first = filtered_mean(entropy(with_graph(state, x, logits, rows)), sure[rows])
            with perturbed(state, state.gradients(first), self.radius):
                doubt = entropy(forward_rows(state, x, rows))
                still = sure[rows] & (doubt.detach() < limit)
                loss = filtered_mean(doubt, still)
                gradients = state.gradients(loss)
            state.learn_if(still.any(), "no answer stayed sure at the perturbed weights")
            state.note(loss=loss, stayed=still.sum())
            self._follow(state["mean_loss"], loss.detach() / math.log(logits.shape[1]))
            state.descend(gradients)
        return logits

    @staticmethod
    def _follow(mean: Tensor, loss: Tensor) -> None:
        """The moving mean of the loss as a share of ln C, so that it means the same for any number of classes."""
        loss = loss.to(mean.dtype)
        mean.copy_(torch.where(mean < 0, loss, torch.lerp(mean, loss, 0.1)))

    def cost(self) -> Cost:
        return dataclasses.replace(super().cost(), forwards=2, backwards=2, bound=4, selected=1, numbers=2)
