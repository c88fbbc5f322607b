"""DCN: a cross network beside an MLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from acclimate.core.config import whole
from acclimate.fields.recommendation.models.parts.cross import MatrixCross, VectorCross
from acclimate.fields.recommendation.models.parts.mlp import MLP
from acclimate.fields.recommendation.models.ranker import MLP_DIMS, Ranker, register

__all__ = ["DCN"]


@register("dcn")
class DCN(Ranker):
    """`w . [x_L, MLP(f)]` without bias, where `x_0 = f` and `x_{l+1} = x_0 (w_l . x_l) + b_l + x_l`.

    Arguments:
        sizes, width: see `Ranker`.
        cross: L, layers of the cross network, 1 or more.
        mlp_dims, dropout, bn: see `MLP`.

    Source: R. Wang et al., Deep & Cross Network for Ad Click Predictions, ADKDD 2017. Deeper by a layer of both parts:
    those of the cross network alone cost next to nothing.
    """

    crossing: ClassVar[type[VectorCross | MatrixCross]] = VectorCross

    def __init__(
        self,
        sizes: Sequence[int],
        width: int,
        *,
        cross: int = 3,
        mlp_dims: Sequence[int] = MLP_DIMS,
        dropout: float = 0.0,
        bn: bool = False,
    ) -> None:
        super().__init__(sizes, width, cross=cross, mlp_dims=mlp_dims, dropout=dropout, bn=bn)
        whole(1, cross=cross)
        self.crosses = nn.ModuleList(self.crossing(self.flat) for _ in range(cross))
        self.mlp = MLP(self.flat, mlp_dims, dropout=dropout, bn=bn, output=False)
        self.output = nn.Linear(self.flat + mlp_dims[-1], 1, bias=False)

    def score(self, embedded: Tensor) -> Tensor:
        crossed = first = embedded.flatten(1)
        for layer in self.crosses:
            crossed = layer(first, crossed)
        return self.output(torch.cat([crossed, self.mlp(first)], 1)).squeeze(1)

    @classmethod
    def deepened(cls, options: Mapping[str, Any], steps: int) -> dict[str, Any]:
        return {**super().deepened(options, steps), "cross": options["cross"] + steps}
