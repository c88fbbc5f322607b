"""The order of tokens where every stretch of a sequence (text, image) is cut over devices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from acclimate.fields.diffusion.exchange.shards import cut, joined

__all__ = ["by_device", "by_stretch", "own_part"]


def own_part(tensor: Tensor, lengths: Sequence[int], rank: int, size: int, axis: int = 1) -> Tensor:
    """What one device owns of a sequence: its part of each stretch, one after the other.

    Arguments:
        tensor: any shape, with `sum(lengths)` tokens along `axis`.
        lengths: tokens of each stretch.
        rank: of the device.
        size: devices.
        axis: of the tokens, 0 or 1.

    Raises:
        ValueError: a stretch that does not divide by `size`.

    >>> own_part(torch.arange(6), (2, 4), rank=1, size=2, axis=0)
    tensor([1, 4, 5])
    """
    return cut(tensor, size, lengths)[rank] if axis else cut(tensor[None], size, lengths)[rank][0]


def by_device(tensor: Tensor, lengths: Sequence[int], size: int) -> Tensor:
    """The tokens `[B, sum(lengths), ...]` in the order of their owners: all of device 0, then all of device 1, ...

    Raises:
        ValueError: a stretch that does not divide by `size`.

    >>> by_device(torch.arange(6).view(1, 6), (2, 4), size=2)
    tensor([[0, 2, 3, 1, 4, 5]])
    """
    return torch.cat(cut(tensor, size, lengths), 1)


def by_stretch(tensor: Tensor, lengths: Sequence[int], size: int) -> Tensor:
    """The inverse of `by_device`.

    >>> by_stretch(torch.tensor([[0, 2, 3, 1, 4, 5]]), (2, 4), size=2)
    tensor([[0, 1, 2, 3, 4, 5]])
    """
    return joined(tensor.chunk(size, 1), lengths)
