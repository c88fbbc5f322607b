"""MoETTA: experts in the normalisation layers, so that samples of different domains need not share one direction."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.core.config import at_least, between, positive, whole, whole_or_none
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.optimizers import OptimizerFactory, moments
from acclimate.core.state import State
from acclimate.functional import entropy, filtered_mean
from acclimate.parts.experts import Load, Routing, expert_norms, grow_experts, load, recorded

__all__ = ["MoETTA"]


@methods.register("moetta")
@dataclass(frozen=True, kw_only=True)
class MoETTA(Method):
    """Give each sample its own scale and shift in every norm layer, from experts that a router chooses among.

    A layer with frozen weight g and bias b has N experts (rows of G and B, zeros at first) and a router that sees the
    mean `a` of the layer's input over tokens or positions: `p = softmax(R a + r)`. Sample i takes the best `active`,
    with coefficients `c_n = p_n / sg(sum_chosen p)` (sg: as a constant; one expert counts 1, with the gradient of
    log p): `y_i = xhat_i (g + sum c_n G_n) + (b + sum c_n B_n)`. So the model begins as the source. With the mean M_t
    over batches of the batch's mean entropy, this one included, and `E0 = margin ln C`,

        L = mean_{H_i <= M_t} exp(E0 - H_i) H_i + balance M_t sum_layers N sum_n f_n P_n

    where f_n is the share of samples that came to expert n and P_n the mean of p_n. The answer precedes the step. Where
    nobody is selected the first term is 0. Experts that nobody came to get zeros as gradient, but momentum goes on.

    Arguments: `learning_rate` > 0 (published 1e-3) and `optimizer` ("sgd" has plain `momentum` in [0, 1], published
    0.9); `experts` N >= 1 (9) and `active` of them (1); `balance` >= 0 (0.2); `margin` in [0, 1] of ln C (0.4);
    `freeze_first`, how many of the norms that could have experts stay as they are, by default one, or 3 of 10 where
    there are more than 40 (inferred from the published lists; never the last one); `randomness` >= 0, the length of
    experts at first as a share of that of g and b (0). `route_penalty` >= 0 lowers p, in choosing, for experts that
    had much to do, by `counts * route_penalty / (1 + penalty_decay t)` more after each batch, less the least (0, off).
    Ablations, all True: `dynamic_threshold` (else E0 is the threshold; inferred), `dynamic_balance` (else no M_t),
    `selective` (else all samples), `entropy_weights` (else 1), `normalised` (else each c is 1), `router_gradient` (else
    c is a constant), `per_sample` (else one decision for the batch). A router shared by all layers is not offered.

    Published are the idea and the constants; the balance, threshold and coefficients are from the released code. The
    paper's study found five frozen layer norms best, the code freezes one.

    Batch norms keep the statistics that `normalization` gives them: experts are per sample, batch statistics are of all
    domains together, so prefer `alpha` or `find` there on mixed streams. Norms without weight or bias, of several axes,
    instance and RMS norms, and subclasses that compute more (an activation, say) stay as they are. The first axis of
    what a norm is fed counts samples. Label maps [N, C, ...] are selected and weighed by position.

    Cost: one forward, one backward; experts, their reset values, one momentum, two numbers. `last.values` has
    threshold, balance (the number of layers when even), largest_share (of samples with one expert, over layers), and
    selected; `last.detail("largest_share")` has it for each layer, `"expert_share"` for each expert.
    Raises ValueError for a model without such norms. Source: MoETTA, AAAI 2026 (arXiv 2511.13760).
    Fails where routing collapses: at its rate the objective ruins the model without `balance`; watch largest_share.

    Example: `acclimate.adapt(net, "moetta:vit-b")`.
    """

    card: ClassVar[Card] = Card(
        summary="routes each sample to its own scale and shift in every normalisation layer",
        paper="arXiv 2511.13760, AAAI 2026",
        needs=frozenset({"norm", "backward"}),
        batch_of_one="layer and group norm only",
        fails_when="batch statistics mix the domains, or the balance of experts is turned off",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {},
        "vit-b": {"freeze_first": 1},
        "vit-l": {"freeze_first": 15},
        "convnext": {"freeze_first": 4},
        "resnet": {"freeze_first": 1},
    }
    learning_rate: float = 1e-3
    optimizer: OptimizerFactory = "sgd"
    momentum: float = 0.9
    experts: int = 9
    active: int = 1
    balance: float = 0.2
    margin: float = 0.4
    freeze_first: int | None = None
    randomness: float = 0.0
    route_penalty: float = 0.0
    penalty_decay: float = 0.0
    dynamic_threshold: bool = True
    dynamic_balance: bool = True
    selective: bool = True
    entropy_weights: bool = True
    normalised: bool = True
    router_gradient: bool = True
    per_sample: bool = True

    def check(self) -> None:
        positive(learning_rate=self.learning_rate)
        between(0, 1, momentum=self.momentum, margin=self.margin)
        whole(1, experts=self.experts, active=self.active)
        whole_or_none(0, freeze_first=self.freeze_first)
        at_least(
            0,
            balance=self.balance,
            randomness=self.randomness,
            route_penalty=self.route_penalty,
            penalty_decay=self.penalty_decay,
        )
        if self.active > self.experts:
            raise ValueError(f"active is {self.active}, of {self.experts} experts. Expected at most as many.")

    def setup(self, state: State) -> None:
        routing = Routing(
            experts=self.experts,
            active=self.active,
            normalised=self.normalised,
            router_gradient=self.router_gradient,
            per_sample=self.per_sample,
        )
        names = grow_experts(state, routing, self.freeze_first, self.randomness)
        state.optimizer(self._factory(), self.learning_rate)
        weight = next(iter(state.weights.values()))
        wide = torch.promote_types(weight.dtype, torch.float32)
        for name in ("steps", "mean_entropy"):
            state.declare(name, torch.zeros((), dtype=wide, device=weight.device), initial=0.0)
        if self.route_penalty:
            layers = expert_norms(state.model)
            for name in names:
                zeros = torch.zeros(self.experts, dtype=wide, device=weight.device)
                layers[name].penalty = state.declare(f"penalty.{name}", zeros, initial=0.0)

    def _factory(self) -> OptimizerFactory:
        """SGD with plain momentum, where the name alone means Nesterov's elsewhere."""
        if self.optimizer == "sgd":
            return functools.partial(torch.optim.SGD, momentum=self.momentum)
        return self.optimizer

    def step(self, state: State, x: Tensor) -> Tensor:
        layers = expert_norms(state.model)
        with recorded(layers):
            logits = state.forward(x)
            work = load(layers)
        doubt = entropy(logits)
        with torch.no_grad():
            mean = self._follow(state, doubt.mean())
            reference = self.margin * math.log(logits.shape[1])
            threshold = mean if self.dynamic_threshold else torch.full_like(mean, reference)
            kept = doubt <= threshold if self.selective else torch.ones_like(doubt, dtype=torch.bool)
            weights = torch.exp(reference - doubt) if self.entropy_weights else torch.ones_like(doubt)
            strength = self.balance * mean if self.dynamic_balance else self.balance
        loss = filtered_mean(weights * doubt, kept) + strength * work.balance
        self._report(state, work, loss, kept, threshold)
        if self.route_penalty:
            self._penalise(state, work)
        state.descend(state.gradients(loss))
        return logits

    @staticmethod
    def _follow(state: State, doubt: Tensor) -> Tensor:
        """The mean over batches of the mean entropy, this one included."""
        steps, mean = state["steps"], state["mean_entropy"]
        steps.add_(1)
        return mean.add_((doubt.to(mean.dtype) - mean) / steps)

    def _penalise(self, state: State, work: Load) -> None:
        """The more an expert has had to do, the later its turn."""
        rate = self.route_penalty / (1 + self.penalty_decay * (state["steps"] - 1))
        for name, counts in zip(work.names, work.counts, strict=True):
            penalty = state[f"penalty.{name}"]
            penalty.add_(counts.to(penalty.dtype) * rate)
            penalty.sub_(penalty.min())

    @staticmethod
    def _report(state: State, work: Load, loss: Tensor, kept: Tensor, threshold: Tensor) -> None:
        largest = work.shares.amax(1)
        state.note(
            loss=loss, selected=kept.sum(), threshold=threshold, balance=work.balance, largest_share=largest.amax()
        )
        state.detail("largest_share", largest, work.names)
        each = [f"{name}[{number}]" for name in work.names for number in range(work.shares.shape[1])]
        state.detail("expert_share", work.shares.flatten(), each)

    def plain(self) -> bool:
        return False

    def cost(self) -> Cost:
        return Cost(
            forwards=1,
            backwards=1,
            bound=2,
            copies={"weights": 2.0, "optimizer": moments(self._factory())},
            per_tensor=self.experts / 4 if self.route_penalty else 0,  # four tensors a layer
            numbers=2,
        )
