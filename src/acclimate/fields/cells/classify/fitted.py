"""What a fitted classifier is: numbers that give probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from acclimate.fields.cells.classify.arrays import Features, Floats
from acclimate.streams.shared import require

__all__ = ["Fitted", "Scaler"]


class Fitted(Protocol):
    """A fitted classifier of K classes.

    Attributes:
        kind: its name in files.
    """

    kind: ClassVar[str]

    def probabilities(self, features: Features) -> Floats:
        """Of each of the K classes: float32 `[N, D]` to float64 `[N, K]`."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All numbers it consists of; ValueError where that is not possible."""
        ...

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], classes: int) -> Self:
        """The same classifier from its tensors."""
        ...


@dataclass(frozen=True, slots=True)
class Scaler:
    """Standard scaling, `(x - mean) / scale` with both `[D]`; a constant feature has scale 1."""

    mean: Floats
    scale: Floats

    @classmethod
    def fit(cls, features: Features) -> Scaler:
        """Mean and population standard deviation of each feature."""
        preprocessing = require("sklearn.preprocessing", "Scaling of features", "cells")
        found: Any = preprocessing.StandardScaler().fit(features.astype(np.float64))
        return cls(found.mean_, found.scale_)

    def __call__(self, features: Features) -> Floats:
        return (features - self.mean) / self.scale

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        return {"mean": torch.from_numpy(self.mean), "scale": torch.from_numpy(self.scale)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Scaler:
        """From a file."""
        return cls(tensors["mean"].numpy(), tensors["scale"].numpy())
