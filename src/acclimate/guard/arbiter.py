"""The arbiter: the source's weights over shallow statistics of the stream, asked which of two answers to believe."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from acclimate.anatomy import batch_norms
from acclimate.core.buffers import Buffers
from acclimate.core.clone import structural_clone
from acclimate.core.normalization import convert, is_stock
from acclimate.core.table import Table
from acclimate.normalization.shallow import ShallowStatistics

__all__ = ["build_arbiter"]

_DEPTH = 0.7
"""Chosen on validation streams: half of the layers leave it to the source's errors under blur, all to clusters."""

_PRIOR = 4.0
"""The source's weight in the statistics of the few rows that the arbiter sees, in rows."""


def build_arbiter(model: nn.Module, pristine: Mapping[str, Tensor]) -> nn.Module | None:
    """A structural clone whose first batch norms follow the batch; None for a model that has none of torch's.

    Statistics follow the domain in shallow layers and the class in deep ones, so it answers shifted images better than
    the source and clusters of labels better than batch statistics everywhere.
    """
    norms = batch_norms(model).values()
    if not norms or not all(is_stock(norm) and norm.running_mean is not None for norm in norms):
        return None
    clone = structural_clone(model)
    convert(clone, ShallowStatistics(depth=_DEPTH, prior=_PRIOR), Table())
    Buffers(clone, pristine).pin(clone)
    return clone
