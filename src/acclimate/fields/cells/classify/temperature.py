"""Temperature scaling: one number that makes probabilities as certain as they are right."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.core.config import positive
from acclimate.fields.cells.classify.arrays import Array, Floats, as_labels, as_probabilities, softmax
from acclimate.streams.shared import require

__all__ = ["Temperature"]

_FLOOR = 1e-6
"""Probability below which none is taken, since a forest can be sure and wrong."""

_REACH = 3.0
"""Natural logarithm of the highest temperature, about 20."""

_SPREAD = 0.5
"""Standard deviation of the logarithm before any cell is seen: two of three temperatures lie between 0.6 and 1.6."""


@dataclass(frozen=True, slots=True)
class Temperature:
    r"""Probabilities $p_c^{1/T} / \sum_k p_k^{1/T}$. Above 1 they become less certain, below 1 more.

    The most probable class stays the same. Probabilities below 1e-6 are taken as 1e-6. Source: Guo et al., ICML 2017.

    Arguments:
        value: T, above 0.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        positive(temperature=self.value)

    @classmethod
    def fit(cls, probabilities: Array, labels: Array) -> Temperature:
        r"""The temperature, between 1/20 and 20, that held-out cells make most likely.

        It minimises $-\sum_i \log p_{y_i}(T) + \tfrac{1}{2} (\log T / 0.5)^2$. The second term is worth a few cells: it
        keeps a dozen right answers, which any certainty would fit, from making all answers certain, and fades beside
        hundreds of cells.

        Arguments:
            probabilities: of cells that the classifier was not fitted on, `[N, C]`.
            labels: their true classes, 0..C-1, `[N]`.

        Raises:
            ValueError: no cells, or arrays that do not fit each other.
        """
        logs, y = _logs(probabilities), plain_labels(probabilities, labels)

        def loss(log_value: float) -> float:
            scaled = logs / exp(log_value)
            top = scaled.max(1)
            whole = top + np.log(np.exp(scaled - top[:, None]).sum(1))
            return float((whole - scaled[np.arange(len(y)), y]).sum()) + (log_value / _SPREAD) ** 2 / 2

        optimize: Any = require("scipy.optimize", "Temperature scaling", "cells")
        found = optimize.minimize_scalar(loss, bounds=(-_REACH, _REACH), method="bounded", options={"xatol": 1e-8})
        return cls(exp(float(found.x)))

    @property
    def at_bound(self) -> bool:
        """Whether it is the lowest or highest that `fit` can give, so that a better one may lie beyond."""
        return abs(log(self.value)) > _REACH - 1e-3

    def apply(self, probabilities: Array) -> NDArray[np.float32]:
        """Scaled probabilities, float32 `[N, C]`."""
        return softmax(_logs(probabilities) / self.value).astype(np.float32)

    def to_dict(self) -> dict[str, float]:
        """As JSON values."""
        return {"temperature": self.value}

    @classmethod
    def from_dict(cls, values: dict[str, float]) -> Temperature:
        """What `to_dict` gave."""
        return cls(values["temperature"])


def plain_labels(probabilities: Array, labels: Array) -> NDArray[np.int64]:
    """Labels of held-out cells, checked against their probabilities; ValueError where they do not fit."""
    values = as_probabilities(probabilities)
    y = as_labels(labels, len(values), values.shape[1])
    if not len(y):
        raise ValueError("There are no held-out cells; expected one or more.")
    return y


def _logs(probabilities: Array) -> Floats:
    return np.log(np.maximum(as_probabilities(probabilities), _FLOOR))
