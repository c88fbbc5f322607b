"""Running statistics that follow only what is learned from (RobustBN of RoTTA)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import between
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations
from acclimate.core.table import Table

__all__ = ["RobustLayer", "RobustStatistics"]


@normalizations.register("robust")
@dataclass(frozen=True, kw_only=True)
class RobustStatistics(Normalization):
    """Stored statistics, from the source's; `run <- (1 - momentum) run + momentum * batch` when samples are learned.

    A forward on kept samples normalises by the updated values (biased variance), and the loss reaches the weights
    through the batch's part of them. Answers, views and frozen answers use what is stored, so that an answer does not
    depend on its batch. A twin of the weights has statistics of its own (all twins share one set); methods that keep
    no samples leave all of them as the source had them.

    Argument: `momentum` in [0, 1], the weight of the new batch, published 0.05.
    """

    momentum: float = 0.05

    def __post_init__(self) -> None:
        between(0, 1, momentum=self.momentum)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        return RobustLayer(source, name, table, self.momentum)


class RobustLayer(NormalizationLayer):
    """Keeps `running_mean` and `running_var` for the live weights, `twin_mean` and `twin_var` for a twin."""

    def __init__(self, source: _BatchNorm, name: str, table: Table, momentum: float) -> None:
        super().__init__(source)
        self.momentum = momentum
        mean, variance = self.source_statistics()
        for owner in ("running", "twin"):
            for key, value in ((f"{owner}_mean", mean), (f"{owner}_var", variance)):
                self.register_buffer(key, value.clone())
                table.declare(f"normalization.{name}.{key}", self.get_buffer(key), initial=value, kind="statistics")

    def stored(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of whose weights run; the source's weights run on those of the live ones."""
        owner = "running" if self.owner in ("", "source") else "twin"
        return self.get_buffer(f"{owner}_mean"), self.get_buffer(f"{owner}_var")

    def follow(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Move the stored statistics towards the batch's; gives the result, with the graph of the batch's part."""
        stored = self.stored()
        moved = [
            torch.lerp(old.to(new.dtype), new, self.momentum) for old, new in zip(stored, (mean, variance), strict=True)
        ]
        for old, new in zip(stored, moved, strict=True):
            old.copy_(new.detach())
        return moved[0], moved[1]

    def respond(self, x: Tensor) -> Tensor:
        if self.phase == "learn" and x.numel() > x.shape[1]:
            return self.normalise(x, *self.follow(*self.moments(x)))
        return F.batch_norm(x, *self.stored(), self.weight, self.bias, False, 0.0, self.eps)

    def plain(self) -> nn.Module:
        """A stock batch norm with the statistics of the live weights."""
        return self.stock(track=True)
