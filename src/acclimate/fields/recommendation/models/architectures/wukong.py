"""Wukong: stacked factorisation machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from acclimate.core.config import whole
from acclimate.fields.recommendation.models.parts.mlp import MLP
from acclimate.fields.recommendation.models.ranker import MLP_DIMS, Ranker, register, to_eights

__all__ = ["Wukong", "WukongLayer"]


class WukongLayer(nn.Module):
    """`[B, n, d]` -> `[B, n_fmb + n_lcb, d]`: `LN([FMB(X); P^T X] + Q^T X)`, with X itself where n stays the same.

    `FMB(X) = MLP(LN(X X^T R))`, flattened, with ReLU after every layer. P and R are Kaiming-uniform, Q Kaiming-normal,
    by their second dimension.
    """

    def __init__(
        self, inputs: int, width: int, n_lcb: int, n_fmb: int, rank: int, fm_mlp: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        outputs = n_fmb + n_lcb
        self.compress = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(inputs, n_lcb)))
        self.project = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(inputs, rank)))
        self.fm_norm = nn.LayerNorm(inputs * rank)
        self.fm_mlp = MLP(inputs * rank, (*fm_mlp, n_fmb * width), dropout=dropout, output=False)
        self.residual = None
        if inputs != outputs:
            self.residual = nn.Parameter(nn.init.kaiming_normal_(torch.empty(inputs, outputs)))
        self.norm = nn.LayerNorm(width)

    def interactions(self, x: Tensor) -> Tensor:
        """`X X^T R`, in the order that costs less: `[B, n, d] -> [B, n, rank]`."""
        return x @ torch.einsum("bnd,nr->bdr", x, self.project)

    def forward(self, x: Tensor) -> Tensor:
        fmb = self.fm_mlp(self.fm_norm(self.interactions(x).flatten(1))).unflatten(1, (-1, x.shape[2]))
        lcb = torch.einsum("bnd,nm->bmd", x, self.compress)
        kept = x if self.residual is None else torch.einsum("bnd,nm->bmd", x, self.residual)
        return self.norm(torch.cat([fmb, lcb], 1) + kept)


@register("wukong")
class Wukong(Ranker):
    """`MLP(X_L)`, flattened, after L of `WukongLayer`; `X_0` is the embeddings.

    Arguments:
        sizes, width: see `Ranker`.
        n_layers: L.
        n_lcb, n_fmb: rows of X from linear compression and from factorisation machines.
        rank: columns of R.
        fm_mlp: hidden widths of the machines' MLPs, which have the same dropout and no batch normalisation.
        mlp_dims, dropout, bn: of the last MLP, see `MLP`.

    Source: B. Zhang et al., Wukong: Towards a Scaling Law for Large-Scale Recommendation, ICML 2024.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        "small": {**Ranker.presets["small"], "n_layers": 2, "n_lcb": 8, "n_fmb": 8, "rank": 8, "fm_mlp": (64, 64)},
    }

    def __init__(
        self,
        sizes: Sequence[int],
        width: int,
        *,
        n_layers: int = 3,
        n_lcb: int = 16,
        n_fmb: int = 16,
        rank: int = 24,
        fm_mlp: Sequence[int] = (512, 512),
        mlp_dims: Sequence[int] = MLP_DIMS,
        dropout: float = 0.0,
        bn: bool = False,
    ) -> None:
        shape = {"n_layers": n_layers, "n_lcb": n_lcb, "n_fmb": n_fmb, "rank": rank}
        whole(1, **shape)
        super().__init__(sizes, width, **shape, fm_mlp=fm_mlp, mlp_dims=mlp_dims, dropout=dropout, bn=bn)
        outputs = n_lcb + n_fmb
        self.layers = nn.Sequential(
            *(
                WukongLayer(outputs if layer else self.fields, width, n_lcb, n_fmb, rank, fm_mlp, dropout)
                for layer in range(n_layers)
            )
        )
        self.mlp = MLP(outputs * width, mlp_dims, dropout=dropout, bn=bn, output=True)

    def score(self, embedded: Tensor) -> Tensor:
        return self.mlp(self.layers(embedded).flatten(1)).squeeze(1)

    @classmethod
    def widened(cls, options: Mapping[str, Any], factor: float) -> dict[str, Any]:
        counts = {key: round(options[key] * factor) for key in ("n_lcb", "n_fmb", "rank")}
        return {**super().widened(options, factor), **counts, "fm_mlp": to_eights(options["fm_mlp"], factor)}

    @classmethod
    def deepened(cls, options: Mapping[str, Any], steps: int) -> dict[str, Any]:
        return {**options, "n_layers": options["n_layers"] + steps}
