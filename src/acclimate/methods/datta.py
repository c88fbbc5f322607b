"""DATTA: tell batches of one domain from mixed ones, normalise both differently, and learn from the former only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from acclimate.anatomy import Selector, affine_norms, batch_norms
from acclimate.core.method import Card, Cost, methods
from acclimate.core.normalization import Normalization, normalizations
from acclimate.core.optimizers import OptimizerFactory
from acclimate.core.state import State
from acclimate.functional import entropy
from acclimate.normalization.diversity import DiversityLayer, DiversityStatistics
from acclimate.parts.affine import AffineMethod
from acclimate.parts.diversity.discriminator import Discriminator, discriminators

__all__ = ["DATTA", "batch_norm_affines"]


def batch_norm_affines(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weight and bias of batch norms; other norms stay as they are."""
    norms = batch_norms(model)
    return {name: weight for name, weight in affine_norms(model).items() if name.rpartition(".")[0] in norms}


@methods.register("datta")
@dataclass(frozen=True, kw_only=True)
class DATTA(AffineMethod):
    """Lower the mean entropy of batches that hold one domain; answer mixed batches and learn nothing from them.

    The first batch norm scores each batch by the scatter of directions in which its samples leave the source
    (`diversity_score`), and a discriminator finds the border between low and high scores of the stream so far. A score
    below it: `rho = 0.60` of the source's statistics, and one step on `L = (1/B) sum_b H_b`. Otherwise, so always in
    the warm-up: `rho = 0.85`, no graph, no gradient, the optimiser untouched. See `normalization="diversity"`.

    Arguments: `learning_rate` > 0 (published 1e-4 for CIFAR, 1e-5 for ImageNet) of `optimizer`, "sgd" with Nesterov
    momentum 0.9; `discriminator`, that of the normalisation, or "kde", "otsu", "quantile", "reference" or an instance
    in its place; `normalization`: a `DiversityStatistics` holds all other settings, and any other normalisation is
    used for both kinds of batches, so that only what is learned from is chosen; `select`, by default weight and bias
    of batch norms. With `steps` > 1 the decision is taken once; `episodic` forgets the scores as well, so that only a
    "reference" then ever finds one domain.
    Presets: "cifar" and "imagenet", the second version; "v1", whose high scores get damped instance statistics and low
    ones are those up to the median; "robust", ours, Otsu's cut of energies within the network, which needs no balance
    of the two kinds; "reference", ours, a border measured on images of the source, which needs no second kind either,
    and FIND's groups for mixed batches: `DiversityStatistics(discriminator=Reference(source=images), score="energy",
    probe=0.3, multiple="find")`; the command line gives it training images.

    Record: `score`, `single` (1 or 0), `threshold` where there is one, and `rho` with "alpha" normalisations.
    Cost: one forward; of one domain, one backward. The decision comes within that forward, where the released code
    runs the first layers twice. Copies of the weights and of one moment, and the scores; one host read.
    Raises ValueError for models without batch norms that have weights and running statistics.
    Source: DATTA, ICME 2025 (arXiv 2408.08056). Rates, momentum, weights, warm-up and rule are its code's, the apex of
    the score its figure's; that code freezes the weights for good at the first mixed batch, which is not followed here.
    The border of v1, Otsu's and the reference are inferred.
    Fails on streams of one kind, where the density has no valley and every batch counts as mixed, and where shifts
    scatter more by themselves than mixtures do.

    Example: `acclimate.adapt(net, "datta:robust")`.
    """

    card: ClassVar[Card] = Card(
        summary="tells mixed batches from those of one domain, and minimises entropy on the latter",
        paper="DATTA, ICME 2025, arXiv 2408.08056",
        needs=frozenset({"norm", "batch norm", "backward"}),
        batch_of_one="counts as mixed: near the source's statistics, nothing learned",
        fails_when="the stream has one kind of batches only, or the scores of both kinds overlap",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {},
        "imagenet": {"learning_rate": 1e-5},
        "v1": {"normalization": "diversity:v1"},
        "robust": {"normalization": "diversity:robust"},
        "reference": {"normalization": "diversity:reference"},
    }
    normalization: str | Normalization = "diversity"
    learning_rate: float = 1e-4
    optimizer: OptimizerFactory = "sgd"
    select: Selector = batch_norm_affines
    discriminator: str | Discriminator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = normalizations.build(self.normalization)
        if not isinstance(chosen, DiversityStatistics):
            chosen = DiversityStatistics(single=chosen, multiple=chosen)
        if self.discriminator is not None:
            object.__setattr__(self, "discriminator", discriminators.build(self.discriminator))
            chosen = dataclasses.replace(chosen, discriminator=self.discriminator)
        object.__setattr__(self, "normalization", chosen)

    def setup(self, state: State) -> None:
        state.require(bool(batch_norm_affines(state.model)), "weights and biases of batch normalisation")
        super().setup(state)

    def step(self, state: State, x: Tensor) -> Tensor:
        watch = cast("DiversityLayer", state.layers[0]).watch
        with watch.learning(spare=not state.rehearsing, held="single" in state.notes):
            logits = state.forward(x)
        decision = watch.decisions[0]
        rho = cast("DiversityStatistics", self.normalization).source_weight(decision.share)
        score = None if math.isnan(decision.score) else decision.score
        found = {"single": float(decision.single), "score": score, "threshold": decision.threshold, "rho": rho}
        state.note(**{name: value for name, value in found.items() if value is not None})
        if decision.single or state.rehearsing:
            loss = entropy(logits).mean()
            state.note(loss=loss)
            state.descend(state.gradients(loss))
        return logits

    def cost(self) -> Cost:
        return dataclasses.replace(super().cost(), numbers=cast("DiversityStatistics", self.normalization).numbers)
