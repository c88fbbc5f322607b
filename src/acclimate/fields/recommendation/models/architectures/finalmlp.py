"""FinalMLP: two MLPs that meet in a bilinear form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.core.config import whole
from acclimate.fields.recommendation.models.parts.mlp import MLP
from acclimate.fields.recommendation.models.ranker import MLP_DIMS, Ranker, register

__all__ = ["FinalMLP"]


@register("finalmlp")
class FinalMLP(Ranker):
    r"""$w_a \cdot a + c_a + w_b \cdot b + c_b + \sum_h a_h^\top M_h b_h$, with a and b from two MLPs of one f.

    Arguments:
        sizes, width: see `Ranker`.
        heads: h pieces that a and b are split into, each with a form of its own; divides the last of `mlp_dims`.
        mlp_dims, dropout, bn: of both MLPs, see `MLP`.

    Raises:
        ValueError: an argument out of range, or heads that do not divide.

    Source: K. Mao et al., FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction, AAAI 2023; here without
    feature gates.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        width: int,
        *,
        heads: int = 1,
        mlp_dims: Sequence[int] = MLP_DIMS,
        dropout: float = 0.0,
        bn: bool = False,
    ) -> None:
        super().__init__(sizes, width, heads=heads, mlp_dims=mlp_dims, dropout=dropout, bn=bn)
        self.first = MLP(self.flat, mlp_dims, dropout=dropout, bn=bn, output=False)
        self.second = MLP(self.flat, mlp_dims, dropout=dropout, bn=bn, output=False)
        whole(1, heads=heads)
        if mlp_dims[-1] % heads:
            raise ValueError(f"heads={heads} do not divide the last of mlp_dims={[*mlp_dims]}; expected a divisor.")
        piece = mlp_dims[-1] // heads
        self.first_output, self.second_output = nn.Linear(mlp_dims[-1], 1), nn.Linear(mlp_dims[-1], 1)
        # Xavier-normal for each head; of all at once torch would take the heads for a kernel.
        self.bilinear = nn.Parameter(torch.empty(heads, piece, piece).normal_(0, piece**-0.5))

    def score(self, embedded: Tensor) -> Tensor:
        flat = embedded.flatten(1)
        a, b = self.first(flat), self.second(flat)
        pieces = (len(self.bilinear), -1)
        turned = torch.einsum("bhi,hij->bhj", a.unflatten(1, pieces), self.bilinear)
        alone = self.first_output(a) + self.second_output(b)
        return alone.squeeze(1) + (turned * b.unflatten(1, pieces)).sum((1, 2))

    @classmethod
    def widened(cls, options: Mapping[str, Any], factor: float) -> dict[str, Any]:
        values, heads = super().widened(options, factor), options["heads"]
        whole_pieces = math.lcm(8, heads)
        values["mlp_dims"][-1] = whole_pieces * max(1, round(options["mlp_dims"][-1] * factor / whole_pieces))
        return values
