"""A fitted classifier as a torch module: the head of a model that can be adapted."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from acclimate.fields.cells.classify.arrays import Floats
from acclimate.fields.cells.classify.classifiers import Classifier
from acclimate.fields.cells.classify.duels import LinearDuels, sides
from acclimate.fields.cells.classify.fitted import Scaler
from acclimate.fields.cells.classify.networks import Network

__all__ = ["Head", "as_module"]

_NEVER = -1e4
"""Logit of a class that was never seen: probability 0 in every precision, and finite, so that entropies are."""


class Head(nn.Module):
    """Scaling, linear layers with rectifiers between them and, for a support vector machine, its duels.

    Maps features `[N, D]` to logits `[N, C]`, of which the softmax is the classifier's probabilities.
    """

    mean: Tensor
    scale: Tensor
    seen: Tensor

    def __init__(
        self, scaler: Scaler, weights: tuple[Floats, ...], offsets: tuple[Floats, ...], seen: Tensor, classes: int
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(scaler.mean.copy()))
        self.register_buffer("scale", torch.from_numpy(scaler.scale.copy()))
        self.register_buffer("seen", seen)
        self.classes = classes
        self.layers = nn.ModuleList(_layer(*layer) for layer in zip(weights, offsets, strict=True))

    def forward(self, features: Tensor) -> Tensor:
        values = (features - self.mean) / self.scale
        for place, layer in enumerate(self.layers):
            values = layer(values.relu() if place else values)
        logits = self.score(values)
        return logits.new_full((len(logits), self.classes), _NEVER).index_copy(1, self.seen, logits)

    def score(self, values: Tensor) -> Tensor:
        """Scores of the classes that were seen, from the last layer."""
        return values


class _DuelHead(Head):
    """The last layer gives margins of pairs of classes."""

    first: Tensor
    second: Tensor

    def __init__(self, duels: LinearDuels, seen: Tensor, classes: int) -> None:
        super().__init__(duels.scaler, (duels.weights,), (duels.offset,), seen, classes)
        first, second = sides(duels.classes)
        self.register_buffer("first", torch.from_numpy(first))
        self.register_buffer("second", torch.from_numpy(second))

    def score(self, values: Tensor) -> Tensor:
        return values.clamp(max=0) @ self.first + (-values).clamp(max=0) @ self.second


def as_module(classifier: Classifier, *, classes: int | None = None, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A fitted logistic, svm-linear or neural classifier as a module with the same answers.

    Of the others forest and boosting are trees, through which nothing can be derived, and svm and svm-poly keep the
    cells that they were fitted on: they are refused.

    Its softmax is `classifier.probabilities`, up to rounding; it is differentiable in features and weights. The logit
    of a class that was never seen is -10,000.

    Arguments:
        classifier: fitted.
        classes: C of the logits `[N, C]`; by default one more than the highest label seen.
        dtype: of its weights and of the features it takes.

    Raises:
        ValueError: forest, boosting, svm or svm-poly, or too few classes.
        RuntimeError: it is not fitted.

    >>> from acclimate.fields.cells.classify.classifiers import build
    >>> head = as_module(build("logistic").fit([[0.0], [1.0], [4.0], [5.0]], [0, 0, 1, 1]))
    >>> head(torch.tensor([[0.5], [6.0]])).argmax(1).tolist()
    [0, 1]
    """
    fitted = classifier.fitted
    total = int(classifier.classes[-1]) + 1 if classes is None else classes
    classifier.check_classes(total)
    seen = torch.from_numpy(np.array(classifier.classes))
    if isinstance(fitted, Network):
        head = Head(fitted.scaler, fitted.weights, fitted.offsets, seen, total)
    elif isinstance(fitted, LinearDuels):
        head = _DuelHead(fitted, seen, total)
    else:
        raise ValueError(
            f"{classifier.name!r} ({classifier.family}) has no form as a module. Fit logistic, svm-linear or neural."
        )
    return head.to(dtype).eval()


def _layer(weights: Floats, offset: Floats) -> nn.Linear:
    layer = nn.Linear(weights.shape[1], weights.shape[0], device="meta")  # draws no random weights
    layer.weight, layer.bias = (nn.Parameter(torch.from_numpy(array.copy())) for array in (weights, offset))
    return layer
