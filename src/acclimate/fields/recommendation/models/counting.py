"""What a ranker costs, counted without running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from acclimate.fields.recommendation.models.ranker import Ranker

__all__ = ["Cost", "cost_of"]

_ROWS = 8


@dataclass(frozen=True, slots=True)
class Cost:
    """What a ranker takes.

    Attributes:
        multiply_adds: for a row, in matrix products and sums; the embedding look-up, activations and normalisations are
            left out.
        parameters: without the embedding table.
        embedding_parameters: of the table, V d.
        embedding_bytes: of the table that a row touches, F d times the bytes of a number.
    """

    multiply_adds: int
    parameters: int
    embedding_parameters: int
    embedding_bytes: int


def cost_of(model: Ranker) -> Cost:
    """The cost of a ranker, which is neither run nor changed: a copy without data is.

    A matrix product of `[m, k]` and `[k, n]` is `m k n` multiply-adds; a sum, of squares or not, as many as it has
    terms.

    >>> from acclimate.fields.recommendation.models.registry import build
    >>> cost_of(build("fnn", [5, 7], width=2, mlp_dims=[3])).multiply_adds  # 4 x 3 + 3 x 1
    15
    """
    table = model.embedding.weight
    with torch.device("meta"):
        outline = type(model)(model.sizes, model.width, **model.options()).eval()
        rows = torch.empty(_ROWS, model.fields, model.width)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping={torch.ops.aten.sum: _sum}) as counter:
        outline.score(rows)
    return Cost(
        multiply_adds=counter.get_total_flops() // (2 * _ROWS),
        parameters=sum(each.numel() for each in model.parameters()) - table.numel(),
        embedding_parameters=table.numel(),
        embedding_bytes=model.flat * table.element_size(),
    )


def _sum(shape: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * shape.numel()
