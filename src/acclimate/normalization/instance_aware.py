"""Instance-aware batch norm (IABN of NOTE): each sample corrects the statistics where it clearly deviates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import at_least, between
from acclimate.core.normalization import Normalization, normalizations
from acclimate.core.table import Table
from acclimate.normalization.robust import RobustLayer

__all__ = ["InstanceAwareStatistics"]


@normalizations.register("instance_aware")
@dataclass(frozen=True, kw_only=True)
class InstanceAwareStatistics(Normalization):
    """Running statistics, moved for each sample and channel by what deviates more than chance explains.

    With `S(a, l) = max(a - l, 0) - max(-a - l, 0)`, a sample's mean m and unbiased variance v over its L positions, and
    the reference `(mu, s2)`: `mu' = mu + S(m - mu, k sqrt((s2 + eps) / L))`,
    `s2' = s2 + S(v - s2, k (s2 + eps) sqrt(2 / (L - 1)))` (never negative); with one position `(mu, s2)` itself.
    The reference is the running statistics, the source's at first. A forward on kept samples takes those of its
    batch (unbiased variance) and moves the running ones towards them, apart for a twin of the weights. An answer
    does not depend on its batch. Made for models trained with it; on others large k does least.

    Arguments: `k` >= 0, published 4; `momentum` in [0, 1], the weight of a learned batch, published 0.01.
    """

    k: float = 4.0
    momentum: float = 0.01

    def __post_init__(self) -> None:
        at_least(0, k=self.k)
        between(0, 1, momentum=self.momentum)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        return InstanceAwareLayer(source, name, table, self)


class InstanceAwareLayer(RobustLayer):
    def __init__(self, source: _BatchNorm, name: str, table: Table, config: InstanceAwareStatistics) -> None:
        super().__init__(source, name, table, config.momentum)
        self.k = config.k

    def respond(self, x: Tensor) -> Tensor:
        mean, variance = self._reference(x)
        positions = x.shape[2:].numel()
        if positions <= 1:
            return self.normalise(x, mean, variance)
        wide = x if x.dtype == torch.float64 else x.float()
        own_variance, own_mean = torch.var_mean(wide, list(range(2, x.ndim)), correction=1)
        spread = variance + self.eps
        mean = mean + _shrink(own_mean - mean, self.k * (spread / positions).sqrt())
        variance = variance + _shrink(own_variance - variance, self.k * spread * (2 / (positions - 1)) ** 0.5)
        return self._normalise_each(x, mean, variance)

    def _reference(self, x: Tensor) -> tuple[Tensor, Tensor]:
        count = x.numel() // x.shape[1]
        if self.phase != "learn" or count == 1:
            mean, variance = self.stored()
            return (mean, variance) if x.dtype == torch.float64 else (mean.float(), variance.float())
        mean, variance = self.moments(x)
        variance = variance * (count / (count - 1))
        self.follow(mean, variance)
        return mean, variance

    def _normalise_each(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Apply statistics of each sample and channel, `[N, C]`."""
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:  # pyright: ignore[reportUnnecessaryComparison]
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale  # pyright: ignore[reportUnnecessaryComparison]
        shape = (*mean.shape, *(1,) * (x.ndim - 2))
        return x * scale.to(x.dtype).view(shape) + shift.to(x.dtype).view(shape)

    def plain(self) -> nn.Module:
        """This layer itself: no stock module normalises so."""
        return self


def _shrink(a: Tensor, limit: Tensor) -> Tensor:
    return F.relu(a - limit) - F.relu(-a - limit)
