"""Running statistics that follow the stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import between
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations
from acclimate.core.table import Table

__all__ = ["EmaLayer", "EmaStatistics"]


@normalizations.register("ema")
@dataclass(frozen=True, kw_only=True)
class EmaStatistics(Normalization):
    """`run <- (1 - momentum) run + momentum * batch`, from the source's, then answer with `run`.

    A first pass normalises by the batch and updates (unbiased variance); the answering pass uses the
    result, so that the current batch counts: two forwards. Views and frozen answers use `run` unchanged.

    Argument: `momentum` in [0, 1], the weight of the new batch, published 0.1.
    """

    observes: ClassVar[bool] = True
    momentum: float = 0.1

    def __post_init__(self) -> None:
        between(0, 1, momentum=self.momentum)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        return EmaLayer(source, name, table, self.momentum)


class EmaLayer(NormalizationLayer):
    def __init__(self, source: _BatchNorm, name: str, table: Table, momentum: float) -> None:
        super().__init__(source)
        self.momentum = momentum
        initial = dict(zip(("running_mean", "running_var"), self.source_statistics(), strict=True))
        for key, value in initial.items():
            setattr(self, key, value.clone())
            table.declare(f"normalization.{name}.{key}", getattr(self, key), initial=value, kind="statistics")

    def respond(self, x: Tensor) -> Tensor:
        return self.follow(x) if self.phase == "observe" else self.normalise_by_source(x)

    def follow(self, x: Tensor) -> Tensor:
        """Normalise by the batch and move the running statistics towards it; by these where one value has none."""
        if x.numel() == x.shape[1]:
            return self.normalise_by_source(x)
        mean, variance = self.source_statistics()
        return F.batch_norm(x, mean, variance, self.weight, self.bias, True, self.momentum, self.eps)

    def plain(self) -> nn.Module:
        """A stock batch norm whose running statistics are those of the stream so far."""
        return self.stock(track=True)
