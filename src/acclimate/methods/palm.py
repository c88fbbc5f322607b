"""PALM: choose what to adapt by how uncertain the model is, and how far by how sensitive each tensor is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate import functional
from acclimate.anatomy import Selector, convolutions_and_norms
from acclimate.core import foreach
from acclimate.core.config import at_least, between, one_of, positive
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.optimizers import OptimizerFactory, moments
from acclimate.core.state import State
from acclimate.parts.agreement import View, sure_and_agreeing
from acclimate.parts.sign_step import sign_step
from acclimate.parts.views import Views, check_images, check_views

__all__ = ["PALM"]

_REFERENCE = {"learning_rate": 5e-4, "alpha": 0.5, "temperature": 50.0, "threshold": 1.0, "margin_unit": "nat"}
_PAPER = {
    "reduction": "mean",
    "freeze": "per_batch",
    "margin": 0.4,
    "margin_unit": "log_classes",
    "consistency_unit": "none",
    "adam": "persistent",
}
_STABLE = {"freeze": "per_batch", "threshold_unit": "temperature_free", "threshold": 2500.0, "epsilon": 2.5e-5}


@methods.register("palm")
@dataclass(frozen=True, kw_only=True)
class PALM(Method):
    """Adapt the tensors that the model's uncertainty points to, each at a rate set by its sensitivity.

    Stage 1, on the clean forward: `L1 = mean_b -sum_c log softmax(z_b / T)_c` (a divergence from the uniform
    distribution) gives `G_k`; a tensor is selected if `sum |G_k| <= threshold`. For selected ones
    `S = |theta G|`, `S^ <- alpha S + (1 - alpha) S^`, and the importance is
    `r_k = mean((|S - S^| + epsilon) / (S^ + epsilon))`.
    Stage 2, on the same logits: `L2 = mean_{H_b < H0} H_b + lambda mean_b CE(z -> z_view)`, and
    `theta_k <- theta_k - learning_rate r_k g_k / (|g_k| + 1e-8)`, the first step of a fresh Adam.

    Arguments (defaults: the released code's settings for CIFAR-10-C, which are `palm:reference`, but the paper's
    margin, twice its `learning_rate` and `alpha` 0.3 for its 0.5: what was better on validation streams, see the
    results page):
    `learning_rate` kappa > 0; `alpha` in [0, 1], weight of the current sensitivity; `temperature` T > 0;
    `threshold` eta >= 0; `consistency` lambda >= 0 (0 leaves the view out); `margin` H0 with `margin_unit`
    "log_classes" (0.4 ln C, the paper's) or "nat" (0.4, the code's); `weight_decay` >= 0; `epsilon` > 0; `views`,
    the augmentation; `select`.
    Switches where paper and code differ, code first: `reduction` "sum" | "mean" over classes; `direction`
    "uniform" | "model" (which distribution the divergence is taken from); `freeze` "sticky" (an unselected
    tensor keeps its last rate) | "per_batch" (rate 0); `granularity` "tensor" | "element" (a rate for each);
    `adam` "fresh" | "persistent"; `consistency_unit` "classes" (lambda times C) | "none"; `first_sensitivity`
    "zero" | "first"; `group` "tensor" | "module" (selected together); `score` "uniform" | "pseudo_label"
    (the paper's Table 7) | "none" (no stage 1: all tensors move at rate 1); `threshold_unit` "published" |
    "temperature_free" (threshold and epsilon are then those of T = 1); `threshold_quantile` in (0, 1], select this
    share of tensors instead; `optimizer`, with `adam="persistent"`: a name or a factory, whose steps are scaled by r.
    `PALM(score="none", adam="persistent", optimizer="lars")`, or "prodigy" or "adafactor", is the baseline of the
    paper's Table 6, whose settings are not public. LARS needs a far larger `learning_rate` than Adam, Prodigy
    1.0, Adafactor 1e-5 to 1e-3: at others their rows only tell that nothing moved, or that all was lost.

    Cost: two forwards and two backwards (one forward with `consistency=0`, one backward with `score="none"`);
    weights and sensitivities, so twice the adapted bytes, and what a persistent optimiser keeps. One host read a step
    (`score="none"`: none). `last.detail("importance")`, `"score"` and `"selected"` tell each tensor's part;
    `last.values` has selected, parameter_share, low_entropy and consistency.
    Raises ValueError if the model has no convolution or normalisation layer, or if views are wanted of inputs
    outside [0, 1].
    Source: Maharana et al., PALM, AAAI 2025 (arXiv 2403.10650).
    Fails on small batches and label-correlated streams. Steps have the size of the rate whatever the
    gradient, so `learning_rate` matters more than any loss weight; `threshold` must be set anew when
    classes, width or batch size change.

    Example: `acclimate.adapt(net, "palm:stable")`.
    """

    card: ClassVar[Card] = Card(
        summary="selects tensors by prediction uncertainty and sets each one's rate by its sensitivity",
        paper="Maharana et al., AAAI 2025, arXiv 2403.10650",
        needs=frozenset({"convolution or norm", "backward", "augmentation"}),
        batch_of_one="layer and group norm only",
        fails_when="batches are small or labels are correlated; the threshold does not suit the network",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "cifar10-c": _REFERENCE,
        "cifar100-c": _REFERENCE | {"alpha": 0.9, "temperature": 100.0, "threshold": 0.5, "weight_decay": 5e-4},
        "imagenet-c": _REFERENCE | {"learning_rate": 5e-5, "temperature": 1000.0, "threshold": 0.3},
        "reference": _REFERENCE,
        "paper": _REFERENCE | _PAPER,
        "stable": _REFERENCE | _STABLE,
    }
    learning_rate: float = 1e-3
    alpha: float = 0.3
    temperature: float = 50.0
    threshold: float = 1.0
    consistency: float = 0.01
    margin: float = 0.4
    margin_unit: str = "log_classes"
    weight_decay: float = 0.0
    epsilon: float = 1e-8
    reduction: str = "sum"
    direction: str = "uniform"
    freeze: str = "sticky"
    granularity: str = "tensor"
    adam: str = "fresh"
    consistency_unit: str = "classes"
    first_sensitivity: str = "zero"
    group: str = "tensor"
    score: str = "uniform"
    threshold_unit: str = "published"
    threshold_quantile: float | None = None
    optimizer: OptimizerFactory = "adam"
    views: View = Views()  # noqa: RUF009 (frozen)
    select: Selector = convolutions_and_norms

    def check(self) -> None:
        positive(learning_rate=self.learning_rate, temperature=self.temperature, epsilon=self.epsilon)
        between(0, 1, alpha=self.alpha)
        if self.threshold_quantile is not None:
            between(0, 1, threshold_quantile=self.threshold_quantile)
        at_least(0, threshold=self.threshold, consistency=self.consistency, margin=self.margin)
        at_least(0, weight_decay=self.weight_decay)
        check_views(views=self.views)
        one_of("nat", "log_classes", margin_unit=self.margin_unit)
        one_of("sum", "mean", reduction=self.reduction)
        one_of("uniform", "model", direction=self.direction)
        one_of("sticky", "per_batch", freeze=self.freeze)
        one_of("tensor", "element", granularity=self.granularity)
        one_of("fresh", "persistent", adam=self.adam)
        one_of("classes", "none", consistency_unit=self.consistency_unit)
        one_of("zero", "first", first_sensitivity=self.first_sensitivity)
        one_of("tensor", "module", group=self.group)
        one_of("uniform", "pseudo_label", "none", score=self.score)
        one_of("published", "temperature_free", threshold_unit=self.threshold_unit)
        if self.adam == "fresh" and self.optimizer != "adam":
            raise ValueError("a fresh Adam is computed in closed form. Use adam='persistent' for another optimizer.")

    def setup(self, state: State) -> None:
        weights = state.adapt(self.select, "convolution and normalisation weights")
        state.generator("views")
        if self.adam == "persistent":
            decay = {"weight_decay": self.weight_decay} if self.weight_decay else {}
            state.optimizer(self.optimizer, self.learning_rate, **decay)
        if self.score == "none":
            return
        wide = torch.promote_types(next(iter(weights.values())).dtype, torch.float32)
        for name, weight in weights.items():
            state.declare(f"sensitivity.{name}", torch.zeros_like(weight, dtype=wide), initial=0.0)
            if self.granularity == "element":
                state.declare(f"importance.{name}", torch.zeros_like(weight, dtype=wide), initial=0.0)
        zeros = next(iter(weights.values())).new_zeros(len(weights), dtype=wide)
        state.declare("importance", zeros, initial=0.0)
        state.declare("ever_selected", zeros.clone(), initial=0.0, merge="max")

    def step(self, state: State, x: Tensor) -> Tensor:
        if self.consistency > 0 and isinstance(self.views, Views):
            check_images("PALM", x, state.extremes)
        logits = state.forward(x)
        if self.score == "none":
            rates = None
        elif not (rates := self._rates(state, self._first_gradients(state, logits))):
            return logits
        classes = logits.shape[1]
        limit = self.margin * (math.log(classes) if self.margin_unit == "log_classes" else 1)
        weight = self.consistency * (classes if self.consistency_unit == "classes" else 1)
        loss = sure_and_agreeing(state, x, logits, self.views, weight, limit)
        self._move(state, state.gradients(loss, of=rates), rates)
        return logits

    def _first_gradients(self, state: State, logits: Tensor) -> dict[str, Tensor]:
        """Stage 1 in temperature-free units: `T^2 dL1 / dtheta`, which no number type underflows."""
        if self.score == "pseudo_label":
            return state.gradients(functional.pseudo_label_loss(logits).mean(), retain_graph=True)
        if self.direction == "uniform":
            divergence = functional.uniform_divergence(logits, self.temperature)
        else:
            divergence = -logits.shape[1] * functional.entropy(logits / self.temperature)
        loss = divergence.mean() / (logits.shape[1] if self.reduction == "mean" else 1)
        return state.gradients(loss * self.temperature**2, retain_graph=True)

    @torch.no_grad()
    def _rates(self, state: State, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Select tensors and set their importance; returns the importance of those that will move."""
        names = list(state.weights)
        scale = 1.0 if self.score == "pseudo_label" else self.temperature**2
        unit = 1.0 if self.threshold_unit == "temperature_free" else scale
        scores = foreach.sums(list(gradients.values()))
        judged = _by_module(scores, names) if self.group == "module" else scores
        if self.threshold_quantile is None:
            selected = judged <= self.threshold * unit
        else:
            selected = judged <= judged.quantile(self.threshold_quantile)
        ever, importance = state["ever_selected"], state["importance"]
        before, now = torch.stack([ever > 0, selected]).tolist()
        ever.copy_(torch.maximum(ever, selected.to(ever.dtype)))
        if any(now):
            seen = {name: old for name, old, chosen in zip(names, before, now, strict=True) if chosen}
            importance.masked_scatter_(selected, self._importance(state, gradients, seen, unit))
        rates = torch.where(selected, importance, 0.0) if self.freeze == "per_batch" else importance.clone()
        sizes = torch.tensor([float(w.numel()) for w in state.weights.values()], device=scores.device)
        state.note(selected=selected.sum(), parameter_share=(sizes * selected).sum() / sizes.sum())
        state.detail("score", scores / scale, names)
        state.detail("importance", rates, names)
        state.detail("selected", selected.float(), names)
        moving = now if self.freeze == "per_batch" else [a or b for a, b in zip(before, now, strict=True)]
        return {
            name: state[f"importance.{name}"] if self.granularity == "element" else rate
            for name, rate, moves in zip(names, rates.unbind(), moving, strict=True)
            if moves
        }

    def _importance(self, state: State, gradients: dict[str, Tensor], seen: dict[str, bool], unit: float) -> Tensor:
        """Importance of the tensors in `seen`, which tells whether they were selected before; moves their averages."""
        averages = [state[f"sensitivity.{name}"] for name in seen]
        products = foreach.multiply([state.weights[name] for name in seen], [gradients[name] for name in seen])
        sensitivities = [now.to(averages[0].dtype) for now in foreach.absolute(products)]
        foreach.lerp(averages, sensitivities, self.alpha)
        if self.first_sensitivity == "first":
            for average, now, old in zip(averages, sensitivities, seen.values(), strict=True):
                average.copy_(average if old else now)
        foreach.subtract(sensitivities, averages)
        epsilon = self.epsilon * unit
        deviations = foreach.add(foreach.absolute(sensitivities), epsilon)
        importances = foreach.divide(deviations, foreach.add(averages, epsilon))
        if self.granularity == "element":
            foreach.copy([state[f"importance.{name}"] for name in seen], importances)
        return torch.stack([importance.mean() for importance in importances])

    @torch.no_grad()
    def _move(self, state: State, gradients: dict[str, Tensor], rates: dict[str, Tensor] | None) -> None:
        weights = [state.weights[name] for name in gradients]
        factors = None if rates is None else list(rates.values())
        if self.adam == "fresh":
            sign_step(weights, list(gradients.values()), self.learning_rate, factors, self.weight_decay)
            return
        before = [] if factors is None else [weight.clone() for weight in weights]
        state.descend(gradients)
        if factors is not None:  # the optimiser's step, scaled: a rate for each tensor with any optimiser
            steps = foreach.multiply(foreach.add(weights, before, -1.0), factors)
            foreach.copy(weights, foreach.add(before, steps))

    def cost(self) -> Cost:
        copies: dict[str, float] = {"weights": 1}
        if self.score != "none":
            copies["statistics"] = 2 if self.granularity == "element" else 1
        if self.adam == "persistent":
            copies["optimizer"] = moments(self.optimizer, dimensions=4)
        views, staged = int(self.consistency > 0), int(self.score != "none")
        bound = 3 * (1 + views) + 2 * staged
        return Cost(forwards=1 + views, backwards=1 + staged, bound=bound, copies=copies, per_tensor=2 * staged)


def _by_module(scores: Tensor, names: list[str]) -> Tensor:
    owners = [name.rpartition(".")[0] for name in names]
    places = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
    index = torch.tensor([places[owner] for owner in owners], device=scores.device)
    return scores.new_zeros(len(places)).index_add_(0, index, scores)[index]
