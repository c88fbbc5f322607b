"""Directions of features, whatever their lengths."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.parts.features import unit

__all__ = ["direction", "even"]

_MOST = 2.0**126
"""Above it a factor would not be finite in single precision."""


def even(vectors: Tensor) -> Tensor:
    """Each row times a power of two, so that its largest entry is from 1/2 to 1: `[..., D]`, in at least float32.

    The direction stays bit for bit. Rows that are zero or not finite stay so.

    >>> even(torch.tensor([[3.0, -12.0], [0.0, 0.0]])).tolist()
    [[0.1875, -0.75], [0.0, 0.0]]
    """
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    largest = vectors.abs().amax(-1, keepdim=True)
    factor = torch.frexp(largest).mantissa / largest
    return vectors * factor.clamp_max(_MOST).where(largest > 0, 1.0)


def direction(vectors: Tensor) -> Tensor:
    """Each row at length 1, however long it is; zero where it is zero. `[..., D]`, float32.

    >>> direction(torch.tensor([[3e-30, 4e-30]])).tolist() == direction(torch.tensor([[3.0, 4.0]])).tolist()
    True
    """
    return unit(even(vectors).float())
