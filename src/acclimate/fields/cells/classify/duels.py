r"""Support vector machines: a margin for each pair of classes, and from the margins a score for each class.

With $f_{ij} > 0$ where class i beats class j, class c scores $s_c = -\sum_{j \ne c} \max(0, f_{jc})$: what it loses its
duels by. A class that wins all its duels scores 0 and all others less, so it is predicted, as by votes; unlike votes
the scores change continuously, so a model can learn through them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from acclimate.fields.cells.classify.arrays import Features, Floats, softmax
from acclimate.fields.cells.classify.fitted import Scaler

__all__ = ["KernelDuels", "LinearDuels", "sides"]

_ROWS = 2048
"""Cells at a time, so that the kernel matrix stays small."""


def sides(classes: int) -> tuple[Floats, Floats]:
    """Which class stands first and which second in each of the P = K (K - 1) / 2 duels: `[P, K]`, 0 or 1."""
    pairs = np.array(list(combinations(range(classes), 2)))
    whole = np.eye(classes)
    return whole[pairs[:, 0]], whole[pairs[:, 1]]


def _standing(margins: Floats, classes: int) -> Floats:
    """Probabilities `[N, K]` from margins `[N, P]`: the softmax of the scores."""
    first, second = sides(classes)
    return softmax(np.minimum(margins, 0) @ first + np.minimum(-margins, 0) @ second)


@dataclass(frozen=True, slots=True)
class LinearDuels:
    """Margins `W x + b` on scaled features, W `[P, D]` and b `[P]`, between K classes."""

    kind: ClassVar[str] = "linear duels"
    scaler: Scaler
    weights: Floats
    offset: Floats
    classes: int

    def probabilities(self, features: Features) -> Floats:
        """Float64 `[N, K]`."""
        return _standing(self.scaler(features) @ self.weights.T + self.offset, self.classes)

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        own = {"weights": torch.from_numpy(self.weights), "offset": torch.from_numpy(self.offset)}
        return self.scaler.tensors() | own

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], classes: int) -> LinearDuels:
        """From a file."""
        return cls(Scaler.of(tensors), tensors["weights"].numpy(), tensors["offset"].numpy(), classes)


@dataclass(frozen=True, slots=True)
class KernelDuels:
    r"""Margins `k(x, V) A + b` on scaled features, with V support vectors.

    The kernel is $\exp(-\gamma |x - v|^2)$ where `degree` is 0, else $(\gamma x \cdot v)^{degree}$.

    Arguments:
        scaler: of the features.
        vectors: support vectors, `[V, D]`.
        shares: A, `[V, P]`.
        offset: b, `[P]`.
        gamma: width of the kernel, above 0.
        degree: of the polynomial, or 0.
        classes: K.
    """

    kind: ClassVar[str] = "kernel duels"
    scaler: Scaler
    vectors: Floats
    shares: Floats
    offset: Floats
    gamma: float
    degree: int
    classes: int

    def probabilities(self, features: Features) -> Floats:
        """Float64 `[N, K]`."""
        rows = [self._margins(features[start : start + _ROWS]) for start in range(0, max(1, len(features)), _ROWS)]
        return _standing(np.concatenate(rows), self.classes)

    def _margins(self, features: Features) -> Floats:
        x = self.scaler(features)
        products = x @ self.vectors.T
        if self.degree:
            kernel = (self.gamma * products) ** self.degree
        else:
            squares = (x**2).sum(1)[:, None] + (self.vectors**2).sum(1) - 2 * products
            kernel = np.exp(-self.gamma * np.maximum(squares, 0))
        return kernel @ self.shares + self.offset

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        arrays = {"vectors": self.vectors, "shares": self.shares, "offset": self.offset}
        numbers = {"gamma": torch.tensor(self.gamma, dtype=torch.float64), "degree": torch.tensor(self.degree)}
        return self.scaler.tensors() | {name: torch.from_numpy(array) for name, array in arrays.items()} | numbers

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], classes: int) -> KernelDuels:
        """From a file."""
        vectors, shares, offset = (tensors[name].numpy() for name in ("vectors", "shares", "offset"))
        gamma, degree = float(tensors["gamma"]), int(tensors["degree"])
        return cls(Scaler.of(tensors), vectors, shares, offset, gamma, degree, classes)
