"""Source statistics: the model normalises as it was trained to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.normalization import Normalization, normalizations
from acclimate.core.table import Table

__all__ = ["SourceStatistics"]


@normalizations.register("source")
@dataclass(frozen=True, kw_only=True)
class SourceStatistics(Normalization):
    """Leave batch norms as they are: running mean and variance of the source. No state."""

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        return source
