"""Shallow statistics: the batch's in the first half of the layers, the source's in the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import at_least, between
from acclimate.core.normalization import Normalization, NormalizationLayer, is_stock, normalizations
from acclimate.core.table import Table

__all__ = ["ShallowLayer", "ShallowStatistics"]


@normalizations.register("shallow")
@dataclass(frozen=True, kw_only=True)
class ShallowStatistics(Normalization):
    """The batch's statistics in the first share of the batch norms, the source's in the rest.

    What is deep follows the classes of a batch as much as its domain, what is shallow hardly. So batches sorted by
    label, which batch statistics everywhere spoil, are answered better than by the source, and others nearly as well
    as by batch statistics everywhere. In the first layers, for a batch of n,

        m = pi mu_s + (1 - pi) mu_B,  v = pi var_s + (1 - pi) var_B,  pi = prior / (prior + n)

    with the biased variance; in the others (and where one value a channel leaves no variance) `mu_s` and `var_s`.
    Layers count in the order in which the model declares them.

    Arguments: `depth` in [0, 1], the share of layers, rounded up; `prior` >= 0, the source's weight in samples.
    A batch norm without running statistics, or with a forward of its own, stays as it is.
    Cost: two passes over the input of each of these layers; nothing is kept.

    Example: `acclimate.adapt(net, "bn", normalization="shallow")`.
    """

    by_batch: ClassVar[bool] = True
    depth: float = 0.5
    prior: float = 8.0

    def __post_init__(self) -> None:
        between(0, 1, depth=self.depth)
        at_least(0, prior=self.prior)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        if not is_stock(source) or source.running_mean is None:
            return source
        return ShallowLayer(source, self)


class ShallowLayer(NormalizationLayer):
    def __init__(self, source: _BatchNorm, config: ShallowStatistics) -> None:
        super().__init__(source)
        self.config = config

    def respond(self, x: Tensor) -> Tensor:
        count = x.numel() // x.shape[1]
        if count <= 1 or not self.depth < self.config.depth:
            return self.normalise_by_source(x)
        keep = self.config.prior / (self.config.prior + len(x))
        mean, variance = self.moments(x)
        first, second = (part.to(mean.dtype) for part in self.source_statistics())
        return self.normalise(x, mean.lerp(first, keep), variance.lerp(second, keep))
