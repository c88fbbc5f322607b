"""The deep part of every ranker but FM."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.core.config import below, between, one_of, whole

__all__ = ["MLP"]


class MLP(nn.Module):
    """`[B, inputs]` -> `[B, dims[-1]]`, or `[B, 1]` with an output layer.

    For each width: linear, batch normalisation if `bn`, ReLU, dropout. The output layer is linear alone.

    Arguments:
        inputs: 1 or more.
        dims: widths of the hidden layers, one or more.
        dropout: share of the numbers that are dropped in training, from 0 to below 1.
        bn: whether layers are batch-normalised.
        output: whether there is an output layer.

    Raises:
        ValueError: no layer, or an argument out of range.
    """

    def __init__(
        self, inputs: int, dims: Sequence[int], *, dropout: float = 0.0, bn: bool = False, output: bool
    ) -> None:
        super().__init__()
        if not isinstance(dims, (tuple, list)) or not dims:
            raise ValueError(f"the widths of an MLP are {dims!r}; expected one or more in a list, such as [128, 64].")
        whole(1, inputs=inputs, **{f"dims[{layer}]": size for layer, size in enumerate(dims)})
        between(0, 1, dropout=dropout)
        below(1, dropout=dropout)
        one_of(True, False, bn=bn)
        self.linears = nn.ModuleList(nn.Linear(*pair) for pair in pairwise((inputs, *dims)))
        self.norms = nn.ModuleList((nn.BatchNorm1d(size) if bn else nn.Identity()) for size in dims)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.output = nn.Linear(dims[-1], 1) if output else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = self.dropout(F.relu(norm(linear(x))))
        return self.output(x)
