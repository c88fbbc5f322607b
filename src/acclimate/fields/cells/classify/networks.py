"""Classifiers that are layers of weights: logistic regression and the neural network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from acclimate.fields.cells.classify.arrays import Features, Floats, softmax
from acclimate.fields.cells.classify.fitted import Scaler

__all__ = ["Network"]


@dataclass(frozen=True, slots=True)
class Network:
    """Linear layers with rectifiers between them on scaled features; its probabilities are the softmax of the last.

    Arguments:
        scaler: of the features.
        weights: of each layer, `[out, in]`.
        offsets: of each layer, `[out]`.
    """

    kind: ClassVar[str] = "network"
    scaler: Scaler
    weights: tuple[Floats, ...]
    offsets: tuple[Floats, ...]

    @classmethod
    def ending(cls, scaler: Scaler, weights: Sequence[Floats], offsets: Sequence[Floats]) -> Network:
        """As scikit-learn fits them: with two classes, its single output z becomes the logits -z/2 and z/2."""
        last, offset = weights[-1], offsets[-1]
        if len(offset) == 1:
            last, offset = np.concatenate([-last / 2, last / 2]), np.concatenate([-offset / 2, offset / 2])
        return cls(scaler, (*weights[:-1], last), (*offsets[:-1], offset))

    def probabilities(self, features: Features) -> Floats:
        """Float64 `[N, K]`."""
        values = self.scaler(features)
        for place, (weights, offset) in enumerate(zip(self.weights, self.offsets, strict=True)):
            values = (np.maximum(values, 0) if place else values) @ weights.T + offset
        return softmax(values)

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        found = self.scaler.tensors()
        for place, (weights, offset) in enumerate(zip(self.weights, self.offsets, strict=True)):
            found |= {f"weight.{place}": torch.from_numpy(weights), f"offset.{place}": torch.from_numpy(offset)}
        return found

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], classes: int) -> Network:
        """From a file."""
        layers = range(sum(name.startswith("weight.") for name in tensors))
        weights = tuple(tensors[f"weight.{place}"].numpy() for place in layers)
        return cls(Scaler.of(tensors), weights, tuple(tensors[f"offset.{place}"].numpy() for place in layers))
