"""LAW: a learning rate for each tensor, from the Fisher information of the model's own labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.anatomy import Selector, convolutions_and_norms
from acclimate.core import foreach
from acclimate.core.config import at_least, positive
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.state import State
from acclimate.functional import pseudo_label_loss
from acclimate.parts.agreement import View, sure_and_agreeing
from acclimate.parts.sign_step import sign_step
from acclimate.parts.views import Views, check_images, check_views

__all__ = ["LAW"]


@methods.register("law")
@dataclass(frozen=True, kw_only=True)
class LAW(Method):
    """Adapt each tensor the faster, the more Fisher information about the model's own labels it has gathered.

    Stage 1: `G_k` is the gradient of `mean_b -log max_c p_bc`; `F_k <- F_k + G_k^2`, never forgotten;
    `v_k = sqrt(mean F_k)`, `w_k = (v_k - min v) / (max v - min v + 1e-8)`, and the rate is `r_k = w_k^power`.
    Stage 2, on the same logits: `L = mean_b H_b + consistency C mean_b CE(z -> z_view)`, and
    `theta_k <- theta_k - learning_rate r_k g_k / (|g_k| + 1e-8)`, the first step of a fresh Adam. The tensor of least
    information never moves, the one of most moves at the full rate.

    Arguments: `learning_rate` kappa > 0; `power` tau >= 0 (0: one rate for all); `consistency` >= 0, times C (0 leaves
    the view out); `carry_gradients`, add the last batch's stage-2 gradient to `G_k`, as the released code does,
    which does not clear it (the equations do not have it); `views`, the augmentation; `select`.
    Published: `learning_rate` 1e-3, 5e-5 and 2e-4, `power` 1, 0.6 and 1 for CIFAR-10-C, CIFAR-100-C and ImageNet-C;
    `consistency` 0.01. Later comparisons multiplied by C twice, so by 10 to 1000 times that.

    Cost: two forwards and two backwards (one forward with `consistency=0`); weights and information, so twice the
    adapted bytes (three times with `carry_gradients`). No host read. `last.detail("rate")` tells each tensor's r.
    Raises ValueError if the model has no convolution or normalisation layer, or if views are wanted of inputs
    outside [0, 1].
    Source: Park et al., Layer-wise Auto-Weighting for Non-Stationary Test-Time Adaptation, WACV 2024.
    Fails on long streams: what is summed up without forgetting freezes the ranking of tensors at what came first.
    Fails, too, on small batches and label-correlated streams.

    Example: `acclimate.adapt(net, "law:cifar100-c")`.
    """

    card: ClassVar[Card] = Card(
        summary="sets each tensor's rate by the Fisher information it has gathered",
        paper="Park et al., WACV 2024, arXiv 2311.05858",
        needs=frozenset({"convolution or norm", "backward", "augmentation"}),
        batch_of_one="layer and group norm only",
        fails_when="the stream is long or changes, batches are small or labels are correlated",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar10-c": {},
        "cifar100-c": {"learning_rate": 5e-5, "power": 0.6},
        "imagenet-c": {"learning_rate": 2e-4},
    }
    learning_rate: float = 1e-3
    power: float = 1.0
    consistency: float = 0.01
    carry_gradients: bool = False
    views: View = Views()  # noqa: RUF009 (frozen)
    select: Selector = convolutions_and_norms

    def check(self) -> None:
        positive(learning_rate=self.learning_rate)
        at_least(0, power=self.power, consistency=self.consistency)
        check_views(views=self.views)

    def setup(self, state: State) -> None:
        weights = state.adapt(self.select, "convolution and normalisation weights")
        state.generator("views")
        for name, weight in weights.items():
            wide = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
            state.declare(f"information.{name}", wide, initial=0.0)
            if self.carry_gradients:
                state.declare(f"gradient.{name}", torch.zeros_like(weight), initial=0.0)

    def step(self, state: State, x: Tensor) -> Tensor:
        if self.consistency > 0 and isinstance(self.views, Views):
            check_images("LAW", x, state.extremes)
        logits = state.forward(x)
        first = list(state.gradients(pseudo_label_loss(logits).mean(), retain_graph=True).values())
        rates = self._rates(state, first)
        loss = sure_and_agreeing(state, x, logits, self.views, self.consistency * logits.shape[1])
        second = list(state.gradients(loss).values())
        if self.carry_gradients:
            foreach.copy([state[f"gradient.{name}"] for name in state.weights], second)
        sign_step(list(state.weights.values()), second, self.learning_rate, rates.unbind())
        return logits

    @torch.no_grad()
    def _rates(self, state: State, gradients: list[Tensor]) -> Tensor:
        """Gather this batch's information; each tensor's rate, `[tensors]`."""
        if self.carry_gradients:
            gradients = foreach.add(gradients, [state[f"gradient.{name}"] for name in state.weights])
        information = [state[f"information.{name}"] for name in state.weights]
        wide = [gradient.to(kept.dtype) for gradient, kept in zip(gradients, information, strict=True)]
        foreach.copy(information, foreach.add(information, foreach.multiply(wide, wide)))
        roots = torch.stack([kept.mean() for kept in information]).sqrt()
        rates = ((roots - roots.min()) / (roots.max() - roots.min() + 1e-8)) ** self.power
        state.detail("rate", rates, state.weights)
        return rates

    def cost(self) -> Cost:
        views = int(self.consistency > 0)
        copies = {"weights": 1, "statistics": 2 if self.carry_gradients else 1}
        return Cost(forwards=1 + views, backwards=2, bound=5 + 3 * views, copies=copies)
