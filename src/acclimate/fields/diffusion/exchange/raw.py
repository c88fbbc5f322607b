"""Activations as they are, in a message."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["as_raw", "from_raw"]


def as_raw(tensor: Tensor, name: str) -> Tensor:
    """The bytes of a tensor `uint8 [size]`, row by row. ValueError for values that are not finite.

    >>> len(as_raw(torch.ones(2, 3), "k"))
    24
    """
    if not bool(tensor.isfinite().all()):
        raise ValueError(
            f"{name}: {int((~tensor.isfinite()).sum())} of {tensor.numel()} values are not finite. Find where the "
            f"model leaves the range of {tensor.dtype}, or use a wider type."
        )
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def from_raw(raw: Tensor, like: Tensor) -> Tensor:
    """The tensor of these bytes, fresh, in the shape, type and place of `like`."""
    return raw.clone().view(like.dtype).view(like.shape).to(like.device)
