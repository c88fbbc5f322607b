"""Classifiers of decision trees: the random forest and gradient boosting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.fields.cells.classify.arrays import Features, Floats
from acclimate.streams.shared import require

__all__ = ["Boosted", "Forest", "HistogramBoosted"]

_ROWS = 512
"""Cells at a time: each is in as many leaves as there are trees."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees as one table of nodes; the answer is the mean of the leaves' shares of classes.

    Arguments:
        roots: node of each tree's root, `[T]`.
        children: nodes for values up to the threshold and for those above it, `[M, 2]`; a leaf names itself.
        feature: which one a node looks at, `[M]`.
        threshold: of each node, `[M]`.
        shares: of classes in each node, `[M, K]`.
        depth: steps from a root to the farthest leaf.
    """

    kind: ClassVar[str] = "forest"
    roots: NDArray[np.int64]
    children: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: Floats
    shares: Floats
    depth: int

    @classmethod
    def fitted(cls, estimator: Any) -> Forest:
        """From a fitted RandomForestClassifier."""
        trees = [tree.tree_ for tree in estimator.estimators_]
        roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])]).astype(np.int64)
        children: list[NDArray[np.int64]] = []
        for root, tree in zip(roots, trees, strict=True):
            own = np.arange(tree.node_count)[:, None]
            both = np.stack([tree.children_left, tree.children_right], 1)
            children.append(np.where(both < 0, own, both) + root)
        feature = np.concatenate([np.maximum(tree.feature, 0) for tree in trees]).astype(np.int64)
        threshold = np.concatenate([tree.threshold for tree in trees])
        shares = np.concatenate([tree.value[:, 0] for tree in trees])
        shares = shares / shares.sum(1, keepdims=True)
        return cls(roots, np.concatenate(children), feature, threshold, shares, max(tree.max_depth for tree in trees))

    def probabilities(self, features: Features) -> Floats:
        """Float64 `[N, K]`."""
        rows = [self._some(features[start : start + _ROWS]) for start in range(0, max(1, len(features)), _ROWS)]
        return np.concatenate(rows)

    def _some(self, features: Features) -> Floats:
        node = np.tile(self.roots, (len(features), 1))
        row = np.arange(len(features))[:, None]
        for _ in range(self.depth):
            above = features[row, self.feature[node]] > self.threshold[node]
            node = self.children[node, above.astype(np.int64)]
        return self.shares[node].mean(1)

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        names = ("roots", "children", "feature", "threshold", "shares")
        return {name: torch.from_numpy(getattr(self, name)) for name in names} | {"depth": torch.tensor(self.depth)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], classes: int) -> Forest:
        """From a file."""
        roots, children, feature = (tensors[name].numpy() for name in ("roots", "children", "feature"))
        shares = tensors["shares"].numpy().reshape(-1, classes)
        return cls(roots, children, feature, tensors["threshold"].numpy(), shares, int(tensors["depth"]))


@dataclass(frozen=True, slots=True)
class Boosted:
    """Gradient boosting by xgboost, `model` in its own binary JSON, with `threads` of the processor."""

    kind: ClassVar[str] = "xgboost"
    model: bytes
    threads: int

    def probabilities(self, features: Features) -> Floats:
        """Float64 `[N, K]`."""
        booster: Any = require("xgboost", "This classifier", "cells").Booster({"nthread": self.threads})
        booster.load_model(bytearray(self.model))
        answers = booster.inplace_predict(features).astype(np.float64)
        return np.stack([1 - answers, answers], 1) if answers.ndim == 1 else answers

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        return {
            "model": torch.frombuffer(bytearray(self.model), dtype=torch.uint8),
            "threads": torch.tensor(self.threads),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], classes: int) -> Boosted:
        """From a file."""
        return cls(tensors["model"].numpy().tobytes(), int(tensors["threads"]))


@dataclass(frozen=True, slots=True)
class HistogramBoosted:
    """Gradient boosting by scikit-learn, for where xgboost is not installed. It cannot be saved."""

    kind: ClassVar[str] = "histogram boosting"
    estimator: Any

    def probabilities(self, features: Features) -> Floats:
        """Float64 `[N, K]`."""
        return self.estimator.predict_proba(features)

    def tensors(self) -> dict[str, Tensor]:
        """ValueError: scikit-learn has no file for it but pickle."""
        raise ValueError(
            "scikit-learn's HistGradientBoostingClassifier can only be pickled. Install xgboost and fit again, or save "
            "one of forest, svm, svm-poly, svm-linear, neural and logistic."
        )

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], classes: int) -> HistogramBoosted:
        """ValueError, as for `tensors`."""
        raise ValueError("HistGradientBoostingClassifier is never saved, so there is no file to read it from.")
