"""Cross layers: each multiplies by the input once more."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MatrixCross", "VectorCross"]


class VectorCross(nn.Module):
    """`x_{l+1} = x_0 (w . x_l) + b + x_l` over rows `[B, D]`; b begins at nought.

    R. Wang et al.: Deep & Cross Network for Ad Click Predictions, ADKDD 2017, equation 3.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Linear(size, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        return first * self.weight(x) + self.bias + x


class MatrixCross(nn.Module):
    """`x_{l+1} = x_0 * (W x_l + b) + x_l` over rows `[B, D]`, elementwise, with a full matrix `[D, D]`.

    R. Wang et al.: DCN V2: Improved Deep & Cross Network, WWW 2021, equation 1.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        return first * self.linear(x) + x
