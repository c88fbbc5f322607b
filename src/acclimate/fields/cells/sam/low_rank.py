"""Low-rank adapters on query and value of attention whose projection is fused."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

__all__ = ["QueryValue", "add_adapters", "merged_weight", "without_adapters"]


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
        moved = [linear(linear(x, down), up) for down, up in zip(self.down, self.up, strict=True)]
        return torch.cat([query + moved[0], key, value + moved[1]], -1)


def merged_weight(layer: QueryValue) -> Tensor:
    """The weight `[3 D, D]` of the plain linear layer that gives the same."""
    query, value = layer.up @ layer.down
    return layer.base.weight + torch.cat([query, torch.zeros_like(query), value])


@contextmanager
def without_adapters(model: nn.Module) -> Generator[None]:
    """As if the adapters of a model were not there, for as long as the block lasts."""
    found = [module for module in model.modules() if isinstance(module, QueryValue)]
    kept = [module.up.detach().clone() for module in found]
    try:
        with torch.no_grad():
            for module in found:
                module.up.zero_()
        yield
    finally:
        with torch.no_grad():
            for module, up in zip(found, kept, strict=True):
                module.up.copy_(up)


def add_adapters(encoder: nn.Module, rank: int) -> int:
    """Put adapters into every layer of SAM's image encoder, which learns nothing else from now on; how many layers.

    ValueError for an encoder without fused projections or with adapters; nothing is changed then.
    """
    if any(isinstance(module, QueryValue) for module in encoder.modules()):
        raise ValueError(f"{type(encoder).__name__} has adapters already. Add them once, to an encoder without any.")
    found = list(_attentions(encoder))
    if not found:
        raise ValueError(
            f"{type(encoder).__name__} has no attention with a fused projection `qkv`, expected SAM's image encoder."
        )
    adapted = [QueryValue(attention.qkv, rank) for attention in found]  # pyright: ignore[reportArgumentType]
    encoder.requires_grad_(False)
    for attention, layer in zip(found, adapted, strict=True):
        attention.qkv = layer
    return len(found)


def _attentions(encoder: nn.Module) -> Iterator[nn.Module]:
    for module in list(encoder.modules()):
        if isinstance(getattr(module, "qkv", None), nn.Linear):
            yield module
