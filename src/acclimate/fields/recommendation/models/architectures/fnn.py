"""FNN: an MLP of all embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from acclimate.fields.recommendation.models.parts.mlp import MLP
from acclimate.fields.recommendation.models.ranker import MLP_DIMS, Ranker, register

__all__ = ["FNN"]


@register("fnn")
class FNN(Ranker):
    """`MLP(f)`, f the embeddings in a line.

    Arguments:
        sizes, width: see `Ranker`.
        mlp_dims, dropout, bn: see `MLP`.

    Source: W. Zhang et al., Deep Learning over Multi-field Categorical Data, ECIR 2016; here without its pre-training.
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
        self.mlp = MLP(self.flat, mlp_dims, dropout=dropout, bn=bn, output=True)

    def score(self, embedded: Tensor) -> Tensor:
        return self.mlp(embedded.flatten(1)).squeeze(1)
