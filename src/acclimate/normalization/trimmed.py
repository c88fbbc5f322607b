"""Trimmed statistics: what most samples of a batch agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import between
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations
from acclimate.core.table import Table

__all__ = ["TrimmedStatistics"]


@normalizations.register("trimmed")
@dataclass(frozen=True, kw_only=True)
class TrimmedStatistics(Normalization):
    """Batch statistics in which the most extreme samples of each channel have no say.

    With each sample's mean `mu_i` and biased variance `var_i`, and `T` the mean over the batch without the
    `floor(trim N)` lowest and as many highest values, taken for each channel:

        m = T(mu_i)        v = T(var_i) + T((mu_i - m)^2)

    which is the law of total variance with `T` for the mean, and the batch's own statistics with `trim=0`. Each `T`
    sorts for itself, so that a sample that is odd in one of them only is kept in the others. Up to `floor(trim N)`
    samples, whatever they hold, move `m` and `v` no further than the values of the other samples reach, where one is
    enough to spoil plain batch statistics. A channel with one value in the batch uses the source's statistics.

    Argument: `trim` in [0, 0.5], the share cut off at each end; 0.5 (preset "median") keeps the median, of an even
    number the middle two. Trimmed means of variances, which are skewed, lie below their mean: the more is cut off, the
    smaller v, which is not corrected for.

    Cost: no state and no further pass; three sorts of `[N, C]` for each layer. Our own design, not published.
    Fails when more than a share `trim` of the batch is odd, and on small batches, where nothing is cut off
    (`trim N < 1`).

    >>> from acclimate import adapt
    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    >>> adapt(net, "bn", normalization="trimmed:median")(torch.rand(8, 3, 8, 8)).shape
    torch.Size([8, 2])
    """

    by_batch: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"median": {"trim": 0.5}}
    trim: float = 0.1

    def __post_init__(self) -> None:
        between(0, 0.5, trim=self.trim)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        layer = TrimmedLayer(source, self.trim)
        layer.source_statistics()
        return layer


class TrimmedLayer(NormalizationLayer):
    def __init__(self, source: _BatchNorm, trim: float) -> None:
        super().__init__(source)
        self.trim = trim

    def respond(self, x: Tensor) -> Tensor:
        if x.numel() == x.shape[1]:
            return self.normalise_by_source(x)
        means, variances = self.moments(x.unsqueeze(2) if x.ndim == 2 else x, each=True)
        mean = self._kept(means)
        return self.normalise(x, mean, self._kept(variances) + self._kept((means - mean).square()))

    def _kept(self, values: Tensor) -> Tensor:
        """Mean of `[N, C]` over the samples, without the most extreme of each channel: `[C]`."""
        count = len(values)
        cut = min(int(self.trim * count), (count - 1) // 2)
        return values.sort(0).values[cut : count - cut].mean(0) if cut else values.mean(0)
