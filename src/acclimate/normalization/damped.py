"""Source statistics, moved by a share of what each sample clearly deviates (DATTA's first version)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import at_least, between
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations
from acclimate.core.table import Table

__all__ = ["DampedStatistics"]


@normalizations.register("damped")
@dataclass(frozen=True, kw_only=True)
class DampedStatistics(Normalization):
    """`m = mu_s + r S(mu_i - mu_s, k s_mu)`, `v = max(var_s + r S(var_i - var_s, k s_var), 0)`, for each sample.

    With `S(u, l) = sign(u) max(|u| - l, 0)`, a sample's mean and unbiased variance `mu_i, var_i` over its L positions,
    `s_mu = sqrt((var_s + eps) / L)` and `s_var = (var_s + eps) sqrt(2 / (L - 1))`; with one position the source's
    statistics. `share` 1 is instance-aware batch norm, 0 is `source`. Nothing is carried over, and an answer does not
    depend on its batch: made for batches of mixed domains.

    Arguments: `k` >= 0, 4 in the released history of DATTA (3 in another revision); `share` r in [0, 1], 0.15 (0.2).
    Cost: one forward. Raises ValueError for batch norms without running statistics.
    Source: the code of DATTA's first version, arXiv 2408.08056v1. Fails where the shift is strong: it corrects little.

    Example: `acclimate.adapt(net, "bn", normalization="damped")`.
    """

    k: float = 4.0
    share: float = 0.15

    def __post_init__(self) -> None:
        at_least(0, k=self.k)
        between(0, 1, share=self.share)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        layer = DampedLayer(source, self)
        layer.source_statistics()
        return layer


class DampedLayer(NormalizationLayer):
    def __init__(self, source: _BatchNorm, config: DampedStatistics) -> None:
        super().__init__(source)
        self.config = config

    def respond(self, x: Tensor) -> Tensor:
        positions = x.shape[2:].numel()
        if positions <= 1:
            return self.normalise_by_source(x)
        mean, variance = self.moments(x, each=True, correction=1)
        source_mean, source_variance = (each.to(mean.dtype) for each in self.source_statistics())
        spread = (source_variance + self.eps) * self.config.k
        mean = self._moved(source_mean, mean, (spread * self.config.k / positions).sqrt())
        variance = self._moved(source_variance, variance, spread * (2 / (positions - 1)) ** 0.5)
        return self.normalise(x, mean, variance.clamp_min(0))

    def _moved(self, source: Tensor, own: Tensor, limit: Tensor) -> Tensor:
        apart = own - source
        return source + self.config.share * (apart - apart.clamp(-limit, limit))
