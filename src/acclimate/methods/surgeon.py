"""SURGEON: entropy on every layer, with what backward keeps of each cut to what the layer has to learn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from acclimate.anatomy import Selector, affine_norms, everything
from acclimate.core import foreach
from acclimate.core.config import at_least, one_of, positive
from acclimate.core.memory import MemoryPolicy, policies
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.optimizers import OptimizerFactory, moments
from acclimate.core.state import State
from acclimate.functional import consistency, entropy
from acclimate.parts.agreement import View, check_alignment
from acclimate.parts.views import Views, check_images, check_views

__all__ = ["Surgeon"]


@methods.register("surgeon")
@dataclass(frozen=True, kw_only=True)
class Surgeon(Method):
    """Minimise entropy through all weights while backward keeps of each layer's input what its importance deserves.

    With `certain`, `L = (1 / |Q|) sum_{b in Q} exp(E0 - H_b) H_b` over `Q = {H_b < E0}`, `E0 = margin ln C` (weights
    without gradient), else `mean_b H_b`; with `consistency`, plus `consistency C mean_b CE(p_b -> p_b')` between the
    answer and that to a random view, with gradient through both. What backward keeps is the business of `memory`:
    "surgeon" by default, which probes each batch; any other policy, or "stock", gives the same loss.

    Arguments: `learning_rate` > 0, of `optimizer`; `certain`; `margin` > 0; `consistency` lambda >= 0 (0: no view);
    `branches`, "joint" or "sequential": one backward through both branches, or one after the other with the other
    side held constant, which has the same gradient and half the peak, for one forward more; `views`; `layers`, "all" or
    "norms", unless `select` says what adapts; `biases` included or, as in the released code, weights alone.
    `faithful`: as the released code does, with weights alone, whatever `biases` says, the policy "surgeon:faithful" in
    place of "surgeon", see there, and each step's gradients kept, because the next probe's are added to them.
    Presets: "cifar10-c", "cifar100-c" and "imagenet-c" in full, each with "-bn" for normalisation weights only; the
    rates without selection and consistency are not published, "plain" keeps those with; "faithful", CIFAR-10-C's.

    Cost: one forward and backward (two with `consistency`; three forwards with sequential branches), and the probe's
    share of both; copies of what adapts, as the optimiser keeps it, one more with `faithful`.
    Raises ValueError for a model without parameters, or if views are wanted of inputs outside [0, 1].
    Source: Ma et al., SURGEON, CVPR 2025 (arXiv 2503.20354). Its released code keeps whole copies of normalisations'
    inputs and of ReLUs' outputs, so its real peak is above PyTorch's own; without `faithful`, inputs of normalisations
    are quantised, ReLUs kept in bits, and biases learn.
    Fails on small batches, and when one probe sample does not stand for the batch.

    Example: `acclimate.adapt(net, "surgeon:cifar10-c-bn")`.
    """

    card: ClassVar[Card] = Card(
        summary="entropy on all layers, with activations pruned by each layer's importance",
        paper="Ma et al., CVPR 2025, arXiv 2503.20354",
        needs=frozenset({"backward", "augmentation"}),
        batch_of_one="layer and group norm only",
        fails_when="batches are small; a learning rate fit for other layers",
    )
    _FULL: ClassVar[Mapping[str, float]] = {"cifar10-c": 2.2e-5, "cifar100-c": 1e-5, "imagenet-c": 5e-6}
    _NORM: ClassVar[Mapping[str, float]] = {"cifar10-c": 1e-3, "cifar100-c": 3e-4, "imagenet-c": 2e-4}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{name: {"learning_rate": rate} for name, rate in _FULL.items()},
        **{f"{name}-bn": {"learning_rate": rate, "layers": "norms"} for name, rate in _NORM.items()},
        "plain": {"certain": False, "consistency": 0.0},
        "faithful": {"faithful": True},
    }
    memory: str | MemoryPolicy = "surgeon"
    learning_rate: float = 2.2e-5
    certain: bool = True
    margin: float = 0.4
    consistency: float = 0.01
    branches: str = "joint"
    biases: bool = True
    faithful: bool = False
    optimizer: OptimizerFactory = "adam"
    views: View = Views()  # noqa: RUF009 (frozen)
    layers: str = "all"
    select: Selector | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.faithful and self.memory == policies.build("surgeon"):
            object.__setattr__(self, "memory", policies.build("surgeon:faithful"))

    def check(self) -> None:
        positive(learning_rate=self.learning_rate, margin=self.margin)
        at_least(0, consistency=self.consistency)
        one_of("all", "norms", layers=self.layers)
        one_of("joint", "sequential", branches=self.branches)
        check_views(views=self.views)

    def setup(self, state: State) -> None:
        weights = state.adapt(self._chosen, "weights")
        state.optimizer(self.optimizer, self.learning_rate)
        state.generator("views")
        for name, weight in weights.items() if self.faithful else ():
            state.declare(f"gradient.{name}", torch.zeros_like(weight), initial=0.0)

    def _chosen(self, model: nn.Module) -> dict[str, nn.Parameter]:
        chosen = (self.select or {"all": everything, "norms": affine_norms}[self.layers])(model)
        biases = self.biases and not self.faithful
        return {name: weight for name, weight in chosen.items() if biases or not name.endswith("bias")}

    def step(self, state: State, x: Tensor) -> Tensor:
        if self.consistency > 0 and isinstance(self.views, Views):
            check_images("SURGEON", x, state.extremes)
        view = self.views(x, state.generator("views")) if self.consistency > 0 else None
        if view is None or self.branches == "joint":
            logits = state.forward(x)
            other = None if view is None else state.forward(view, answering=False)
            loss = self._loss(state, logits, other)
            state.note(loss=loss)
            self._descend(state, state.gradients(loss))
            return logits
        logits = state.forward(x)  # first, because it moves the statistics that views are answered with
        with torch.no_grad():
            held = state.forward(view, answering=False)
        loss = self._loss(state, logits, held)
        state.note(loss=loss)
        first = state.gradients(loss)
        second = state.gradients(self._agreement(logits.detach(), state.forward(view, answering=False)))
        both = foreach.add(list(first.values()), list(second.values()))
        self._descend(state, dict(zip(first, both, strict=True)))
        return logits

    def _descend(self, state: State, gradients: Mapping[str, Tensor]) -> None:
        if self.faithful:
            foreach.copy([state[f"gradient.{name}"] for name in gradients], list(gradients.values()))
        state.descend(gradients)

    def _loss(self, state: State, logits: Tensor, view: Tensor | None) -> Tensor:
        doubt = entropy(logits)
        if not self.certain:
            loss = doubt.mean()
        else:
            limit = self.margin * math.log(logits.shape[1])
            chosen = doubt.detach() < limit
            weight = torch.exp(limit - doubt.detach()) * chosen
            loss = (weight * doubt).sum() / chosen.sum().clamp_min(1)
            state.note(selected=chosen.sum())
            if view is None:
                state.learn_if(chosen.any(), "no answer was sure enough")
        return loss if view is None else loss + self._agreement(logits, view)

    def _agreement(self, logits: Tensor, view: Tensor) -> Tensor:
        check_alignment(self.views, logits)
        return self.consistency * logits.shape[1] * consistency(logits, view).mean()

    def cost(self) -> Cost:
        views = int(self.consistency > 0)
        again = int(views and self.branches == "sequential")
        return Cost(
            forwards=1 + views + again,
            backwards=1 + again,
            bound=3 * (1 + views) + again,
            copies={"weights": 1, "optimizer": moments(self.optimizer), "statistics": int(self.faithful)},
        )
