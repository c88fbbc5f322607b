"""Low-rank adapters on query and value of attention whose projection is fused."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["QueryValue", "add_adapters", "merged_weight"]


class QueryValue(nn.Module):
    """`[q + B_q A_q x, k, v + B_v A_v x]` around a linear layer that gives `[q, k, v]`.

    At first B is nought, and the layer is what it was. Source: Hu et al., ICLR 2022 (arXiv 2106.09685), on SAM as in
    BC-SAM (arXiv 2408.06716): factor 1, no dropout.

    Arguments: `base`, from D to 3 D numbers, which no longer learns; `rank` r, 1 to D; 4 r D numbers are learned.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        width = base.in_features
        if base.out_features != 3 * width or not 1 <= rank <= width:
            raise ValueError(
                f"found a layer from {width} to {base.out_features} numbers and rank {rank}, expected one from D to "
                "3 D, query, key and value, and a rank from 1 to D."
            )
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(2, rank, width))
        self.up = nn.Parameter(torch.zeros(2, width, rank))
        for each in self.down:
            nn.init.kaiming_uniform_(each, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.base(x).chunk(3, dim=-1)
        moved = [nn.functional.linear(nn.functional.linear(x, down), up) for down, up in zip(self.down, self.up)]  # noqa: B905
        return torch.cat([query + moved[0], key, value + moved[1]], -1)


def merged_weight(layer: QueryValue) -> Tensor:
    """The weight `[3 D, D]` of the plain linear layer that gives the same."""
    query, value = self_products(layer)
    return layer.base.weight + torch.cat([query, torch.zeros_like(query), value])


def self_products(layer: QueryValue) -> tuple[Tensor, Tensor]:
    """`B A` of query and of value, each `[D, D]`."""
    products = layer.up @ layer.down
    return products[0], products[1]


def add_adapters(encoder: nn.Module, rank: int) -> int:
    """Put adapters into every layer of SAM's image encoder, which learns nothing else from now on; how many layers.

    ValueError for an encoder without fused projections.
    """
    encoder.requires_grad_(False)
    found = list(_attentions(encoder))
    if not found:
        raise ValueError(
            f"{type(encoder).__name__} has no attention with a fused projection `qkv`, expected SAM's image encoder."
        )
    for attention in found:
        attention.qkv = QueryValue(attention.qkv, rank)  # pyright: ignore[reportArgumentType]
    return len(found)


def _attentions(encoder: nn.Module) -> Iterator[nn.Module]:
    for module in list(encoder.modules()):
        if isinstance(getattr(module, "qkv", None), nn.Linear):
            yield module
