"""Batch statistics: every forward is normalised by its own batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.normalization import Normalization, NormalizationLayer, is_stock, normalizations
from acclimate.core.table import Table

__all__ = ["BatchStatistics"]


@normalizations.register("batch")
@dataclass(frozen=True, kw_only=True)
class BatchStatistics(Normalization):
    """Mean and biased variance of the current batch, in eval mode too; nothing is carried over (BN-1).

    Answers depend on the batch's size and company. A channel with one single value in the whole batch
    has no variance; there the source's statistics are used. A subclass of batch norm with a forward of its own
    (norm and activation in one, say) stays in place without its running statistics.
    """

    by_batch: ClassVar[bool] = True

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        if is_stock(source):
            return BatchLayer(source)
        source.running_mean = source.running_var = None  # its own forward stays, and has only the batch to go by
        source.track_running_stats = False
        return source


class BatchLayer(NormalizationLayer):
    def respond(self, x: Tensor) -> Tensor:
        return self.normalise_by_batch(x)

    def plain(self) -> nn.Module:
        """A stock batch norm without running statistics, which normalises by the batch in eval mode too."""
        return self.stock(track=False)
