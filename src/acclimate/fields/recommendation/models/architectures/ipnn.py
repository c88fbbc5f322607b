"""IPNN: an MLP that is given the products of pairs, too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from acclimate.fields.recommendation.models.parts.mlp import MLP
from acclimate.fields.recommendation.models.parts.pairs import PairProducts
from acclimate.fields.recommendation.models.ranker import MLP_DIMS, Ranker, register

__all__ = ["IPNN"]


@register("ipnn")
class IPNN(Ranker):
    """`MLP([f, p])`, f the embeddings in a line and p the inner products of all pairs of fields.

    Arguments:
        sizes, width: see `Ranker`.
        mlp_dims, dropout, bn: see `MLP`.

    Source: Y. Qu et al., Product-based Neural Networks for User Response Prediction, ICDM 2016.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        width: int,
        *,
        mlp_dims: Sequence[int] = MLP_DIMS,
        dropout: float = 0.0,
        bn: bool = False,
    ) -> None:
        super().__init__(sizes, width, mlp_dims=mlp_dims, dropout=dropout, bn=bn)
        self.products = PairProducts(self.fields)
        inputs = self.flat + self.fields * (self.fields - 1) // 2
        self.mlp = MLP(inputs, mlp_dims, dropout=dropout, bn=bn, output=True)

    def score(self, embedded: Tensor) -> Tensor:
        return self.mlp(torch.cat([embedded.flatten(1), self.products(embedded)], 1)).squeeze(1)
