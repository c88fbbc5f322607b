"""Instance-aware batch norm (IABN of NOTE): each sample corrects the statistics where it clearly deviates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
        positions = x.shape[2:].numel()
        if positions <= 1:
            return self.normalise(x, *self._reference(x))
        own_mean, own_variance = own = self.moments(x, each=True, correction=1)
        mean, variance = self._reference(x, own)
        spread = variance + self.eps
        mean = _towards(own_mean, mean, spread.sqrt() * (self.k / positions**0.5))
        variance = _towards(own_variance, variance, spread * (self.k * (2 / (positions - 1)) ** 0.5))
        return self.normalise(x, mean, variance)

    def _reference(self, x: Tensor, own: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The running statistics; for learning those of the batch, from each sample's `own` where it has some."""
        count = x.numel() // x.shape[1]
        if self.phase != "learn" or count == 1:
            mean, variance = self.stored()
            return (mean, variance) if x.dtype == torch.float64 else (mean.float(), variance.float())
        batch = self.moments(x, correction=1) if own is None else _pooled(*own, count)
        self.follow(*(each.detach() for each in batch))
        return batch

    def plain(self) -> nn.Module:
        """This layer itself: no stock module normalises so."""
        return self


def _towards(own: Tensor, reference: Tensor, limit: Tensor) -> Tensor:
    """`reference + S(own - reference, limit)`: the reference, or else what is nearest to it within `own +- limit`."""
    low, high = own - limit, own + limit
    return torch.where(reference < low, low, torch.where(reference > high, high, reference))


def _pooled(means: Tensor, variances: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of a batch of `count` values a channel from those of its samples."""
    between, mean = torch.var_mean(means, 0, correction=0)
    within = variances.mean(0) * ((count - len(means)) / (count - 1))
    return mean, torch.add(within, between, alpha=count / (count - 1))
