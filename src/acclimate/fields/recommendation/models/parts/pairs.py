"""Products of pairs of fields."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["PairProducts", "factorised"]


def factorised(embedded: Tensor) -> Tensor:
    r"""The inner products of all pairs of fields, summed in linear time: `[B, F, d] -> [B]`.

    $\sum_{i<j} \langle e_i, e_j \rangle = \frac12 \sum_k [(\sum_i e_{ik})^2 - \sum_i e_{ik}^2]$.

    S. Rendle: Factorization Machines, ICDM 2010, lemma 3.1.

    >>> factorised(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist()  # 1 x 3 + 2 x 4
    [11.0]
    """
    return 0.5 * (embedded.sum(1).square().sum(1) - embedded.square().sum((1, 2)))


class PairProducts(nn.Module):
    """The inner products of all pairs of fields i < j, in the order (0, 1), (0, 2), ..., (1, 2), ...

    `[B, F, d] -> [B, F (F - 1) / 2]`.

    >>> PairProducts(3)(torch.tensor([[[1.0], [2.0], [5.0]]])).tolist()
    [[2.0, 5.0, 10.0]]
    """

    places: Tensor

    def __init__(self, fields: int) -> None:
        super().__init__()
        row, column = torch.triu_indices(fields, fields, 1)
        self.register_buffer("places", row * fields + column, persistent=False)

    def forward(self, embedded: Tensor) -> Tensor:
        return (embedded @ embedded.transpose(1, 2)).flatten(1).index_select(1, self.places)
