"""Where the elements of a tensor lie: what a packed tensor remembers besides its bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Size, Tensor

__all__ = ["Layout", "dense"]


@dataclass(frozen=True)
class Layout:
    """Shape, strides, type and device of a dense tensor.

    Codecs work on the flat *physical* order, the order in memory, which costs no copy in any memory format.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """The layout of a tensor that `dense` has returned."""
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.device)

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the dense tensor."""
        return self.numel * self.dtype.itemsize

    @property
    def order(self) -> tuple[int, ...]:
        """The axes from slowest to fastest in memory."""
        return tuple(sorted(range(len(self.shape)), key=lambda axis: (-self.stride[axis], self.shape[axis] != 1)))

    def flat(self, tensor: Tensor) -> Tensor:
        """A view `[numel]` of a tensor of this layout, in physical order."""
        return tensor.as_strided((self.numel,), (1,))

    def shaped(self, flat: Tensor) -> Tensor:
        """The tensor of this layout whose elements in physical order are `flat`: a view of it."""
        return flat.as_strided(self.shape, self.stride)

    def empty(self) -> Tensor:
        """Uninitialised elements `[numel]` for a tensor of this layout."""
        return torch.empty(self.numel, dtype=self.dtype, device=self.device)


def dense(tensor: Tensor) -> Tensor:
    """The tensor itself if its elements fill memory without gap or overlap, else a contiguous copy."""
    tensor = tensor.detach()
    if _is_dense(tensor.shape, tensor.stride()) and not tensor.is_neg():
        return tensor
    copy = tensor.resolve_neg().clone()  # keeps channels last where it can
    return copy if _is_dense(copy.shape, copy.stride()) else copy.contiguous()


def _is_dense(shape: Size, stride: Sequence[int]) -> bool:
    expected = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size != 1):
        if step != expected:
            return math.prod(shape) == 0
        expected *= size
    return True
