"""Alpha-mixing: the source's statistics with a share of the batch's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import at_least, between
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations
from acclimate.core.table import Table

__all__ = ["AlphaStatistics"]


@normalizations.register("alpha")
@dataclass(frozen=True, kw_only=True)
class AlphaStatistics(Normalization):
    """`m = pi mu_s + (1 - pi) mu_B`, `v = pi var_s + (1 - pi) var_B`; nothing is carried over.

    Arguments: `source_weight` pi in [0, 1], published 0.9; or `prior` N, a pseudo sample count that sets
    `pi = N / (N + n)` for a batch of n (Schneider et al., NeurIPS 2020; 16 is usual for single images),
    0 to use `source_weight`; `unbiased`: divide the batch variance by n - 1, as the published code does.
    A channel with one single value in the batch uses the source's statistics alone.
    """

    by_batch: ClassVar[bool] = True
    source_weight: float = 0.9
    prior: float = 0.0
    unbiased: bool = True

    def __post_init__(self) -> None:
        between(0, 1, source_weight=self.source_weight)
        at_least(0, prior=self.prior)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        layer = AlphaLayer(source, self)
        layer.source_statistics()
        return layer


class AlphaLayer(NormalizationLayer):
    def __init__(self, source: _BatchNorm, config: AlphaStatistics) -> None:
        super().__init__(source)
        self.config = config

    def respond(self, x: Tensor) -> Tensor:
        count = x.numel() // x.shape[1]
        if count == 1:
            return self.normalise_by_source(x)
        prior = self.config.prior
        keep = prior / (prior + len(x)) if prior else self.config.source_weight
        mean, variance = self.moments(x, correction=int(self.config.unbiased))
        source_mean, source_variance = self.source_statistics()
        return self.normalise(x, keep * source_mean + (1 - keep) * mean, keep * source_variance + (1 - keep) * variance)
