"""NCTTA: draw features to the rows of the classifier, as they are at the end of training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.core.config import at_least, between, one_of, positive, whole_or_none
from acclimate.core.method import Card, Cost, methods
from acclimate.core.optimizers import OptimizerFactory
from acclimate.core.state import State
from acclimate.functional import entropy, filtered_mean
from acclimate.parts.affine import AffineMethod
from acclimate.parts.alignment import (
    ALIGNMENTS,
    CANDIDATES,
    METRICS,
    VARIANTS,
    Directions,
    alignment_distance,
    alignment_loss,
    directions,
    hybrid_target,
)
from acclimate.parts.features import features, fed, require_head, rows_of_head
from acclimate.parts.reliability import share_of_log_classes
from acclimate.parts.selective import answer, declare_share, forward_rows, rows_to_learn

__all__ = ["NCTTA"]

_LITERAL = 0.4 * math.log(1000)
_FEW, _SOME = 20, 200
"""Classes up to which k is 3, and 5."""


@methods.register("nctta")
@dataclass(frozen=True, kw_only=True)
class NCTTA(AffineMethod):
    """Lower entropy and turn each feature towards the rows of the classifier that fit it, through norms.

    In a trained model the feature h of every sample points along the row w of its class. Of the sure rows
    S, `H_b < entropy_coeff ln C`: `L = mean_S lambda_b (H_b + scale N_b)`, with
    `lambda_b = reweight exp(margin_coeff ln C - H_b) + nu / (1 + eta d_b)`, no gradient, where d is the distance of
    `h/|h|` to `w/|w|` of the predicted class, and `N_b = -log( sum_T q_j exp(s_j/tau) / sum_j exp(s_j/tau) )` with
    cosines s of h and all rows, and shares q over the k likeliest classes T: `q = (1 - alpha) g + alpha c`, g from
    distances, c from probabilities (see `parts.alignment`). No sure row, no change.

    Arguments: `entropy_coeff`, `margin_coeff` in [0, 1] of ln C, or `entropy_threshold`, `margin_threshold` > 0 in nats
    instead (the released code: 2.763 for any number of classes); `reweight`, `nu`, `eta`, `scale` >= 0; `top_k` k >= 1,
    cut to C, by default 3 up to 20 classes (at most C - 1), 5 up to 200, else 10; `alpha` in [0, 1], by default 0.5 up
    to 200 classes, else 0.3; `temperature` tau > 0; `alignment` N: "infonce", "cosine_l2", "margin_triplet",
    "hinge_cos"; `metric` "cos" or "euclid" of g; `candidates` T: by "prob" (code) or "hybrid" score (paper); `variant`
    of q: "code" or "paper"; `detach_target`, no gradient through q (the code lets it pass); `learning_rate` > 0
    (published 1e-3, in batches of 64; on validation streams of CIFAR-10 3e-3 was worse there, and a network with group
    norm needs 1e-4, `nctta:group-norm`, or is ruined);
    `optimizer` ("sgd" has Nesterov momentum 0.9, as released); `select`, which parameters adapt.

    Cost: one forward, one backward; without batch statistics one forward, and another with its backward over the
    sure rows only, as long as they are less than half. Weights, the optimiser's copies and one number. The unit rows
    are taken anew from the head, C x D.
    Raises ValueError without normalisation parameters, without a linear head fed one vector a row that gives the
    logits, or, with a margin loss, where k is not below C.
    Source: arXiv 2512.10421 (CVPR 2026). From its code: the losses and all settings of `nctta:imagenet`; from its
    ablation: k and alpha of few classes; inferred: thresholds by class count, and k between. `nctta:paper` scores as
    the paper does, as far as it could be read.
    Fails when no answer is sure, when labels are correlated (it drifts like Tent), with heads of cosines, and sooner
    than Tent where the rate is too high: its gradients are several times larger.
    At k = 2 distances only order the two rows: g is (0.881, 0.119).

    Example: `acclimate.adapt(net, "nctta:imagenet")`.
    """

    card: ClassVar[Card] = Card(
        summary="minimises entropy and aligns features with the rows of the classifier",
        paper="arXiv 2512.10421, CVPR 2026",
        needs=frozenset({"norm", "backward", "linear head"}),
        batch_of_one="layer and group norm only",
        fails_when="no answer is sure, or labels are correlated",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar10": {"top_k": 3, "alpha": 0.5},
        "cifar100": {"top_k": 5, "alpha": 0.5},
        "imagenet": {
            "entropy_threshold": _LITERAL,
            "margin_threshold": _LITERAL,
            "top_k": 10,
            "alpha": 0.3,
            "scale": 5.0,
            "learning_rate": 1e-3,
        },
        "group-norm": {"learning_rate": 1e-4},
        "paper": {
            "candidates": "hybrid",
            "variant": "paper",
            "metric": "euclid",
            "top_k": 3,
            "alpha": 0.5,
            "scale": 1.0,
        },
    }
    learning_rate: float = 1e-3
    optimizer: OptimizerFactory = "sgd"
    entropy_coeff: float = 0.4
    margin_coeff: float = 0.4
    entropy_threshold: float | None = None
    margin_threshold: float | None = None
    reweight: float = 1.0
    nu: float = 5.0
    eta: float = 1.0
    scale: float = 5.0
    top_k: int | None = None
    alpha: float | None = None
    temperature: float = 1.0
    alignment: str = "infonce"
    metric: str = "cos"
    candidates: str = "prob"
    variant: str = "code"
    detach_target: bool = False

    def check(self) -> None:
        super().check()
        between(0, 1, entropy_coeff=self.entropy_coeff, margin_coeff=self.margin_coeff)
        at_least(0, reweight=self.reweight, nu=self.nu, eta=self.eta, scale=self.scale)
        positive(temperature=self.temperature)
        whole_or_none(1, top_k=self.top_k)
        for name in ("entropy_threshold", "margin_threshold"):
            if (value := getattr(self, name)) is not None:
                positive(**{name: value})
        if self.alpha is not None:
            between(0, 1, alpha=self.alpha)
        one_of(*ALIGNMENTS, alignment=self.alignment)
        one_of(*METRICS, metric=self.metric)
        one_of(*CANDIDATES, candidates=self.candidates)
        one_of(*VARIANTS, variant=self.variant)

    def setup(self, state: State) -> None:
        super().setup(state)
        declare_share(state)
        classes = require_head(state).out_features
        if self.alignment in ("margin_triplet", "hinge_cos") and self._nearest(classes) >= classes:
            raise ValueError(
                f"{self.alignment} compares {self._nearest(classes)} classes with the others, but the model tells "
                f"{classes} apart. Set top_k below that, or take alignment='infonce'."
            )

    def step(self, state: State, x: Tensor) -> Tensor:
        with features(state) as seen:
            logits = answer(state, x)
            found = fed(seen, logits, x)
            weight = rows_of_head(state, found, logits)
            chosen = entropy(logits.detach()) < self._threshold(self.entropy_threshold, self.entropy_coeff, logits)
            state.learn_if(chosen.any(), "no answer was sure")
            state.note(selected=chosen.sum())
            rows = rows_to_learn(state, chosen)
            if rows is None:
                return logits
            learned, found = logits[rows], found[rows]
            if not logits.requires_grad:
                learned, found = forward_rows(state, x, rows), seen[-1]
        with torch.autocast(x.device.type, enabled=False):
            loss = self._loss(state, directions(found, weight), learned, chosen[rows])
        state.note(loss=loss)
        state.descend(state.gradients(loss))
        return logits

    def _loss(self, state: State, towards: Directions, logits: Tensor, keep: Tensor) -> Tensor:
        """`mean lambda (H + scale N)` over the rows to keep."""
        doubt = entropy(logits)
        distance = alignment_distance(towards, logits.argmax(1)).detach()
        limit = self._threshold(self.margin_threshold, self.margin_coeff, logits)
        weight = self.reweight * torch.exp(limit - doubt.detach()) + self.nu / (1 + self.eta * distance)
        classes = logits.shape[1]
        with torch.set_grad_enabled(not self.detach_target):
            index, target = hybrid_target(
                towards.cosines,
                logits.to(doubt.dtype).softmax(1),
                top_k=self._nearest(classes),
                alpha=self._confidence(classes),
                metric=self.metric,
                candidates=self.candidates,
                variant=self.variant,
            )
        misalignment = alignment_loss(towards, index, target, kind=self.alignment, temperature=self.temperature)
        state.note(
            p_fca=filtered_mean(distance, keep),
            alignment=filtered_mean(misalignment.detach(), keep),
            weight=filtered_mean(weight, keep),
        )
        return filtered_mean(weight * (doubt + self.scale * misalignment), keep)

    def _threshold(self, nats: float | None, share: float, logits: Tensor) -> float:
        return share_of_log_classes(share, logits) if nats is None else nats

    def _nearest(self, classes: int) -> int:
        """k for so many classes."""
        usual = 3 if classes <= _FEW else 5 if classes <= _SOME else 10
        return min(usual, max(1, classes - 1)) if self.top_k is None else min(self.top_k, classes)

    def _confidence(self, classes: int) -> float:
        """alpha for so many classes."""
        return (0.5 if classes <= _SOME else 0.3) if self.alpha is None else self.alpha

    def cost(self) -> Cost:
        return dataclasses.replace(super().cost(), selected=1, numbers=1)
