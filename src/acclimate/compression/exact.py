"""The tensor itself, watched for changes in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from acclimate.compression.codec import Codec, Packed, codecs
from acclimate.compression.layout import Layout

__all__ = ["Exact"]


@dataclass(frozen=True, eq=False)
class _Held(Packed):
    version: int | None = None

    def decode(self) -> Tensor:
        (tensor,) = self.parts
        if self.version is not None and tensor._version != self.version:  # pyright: ignore[reportPrivateUsage]
            raise RuntimeError(
                f"a tensor {list(tensor.shape)} kept for backward was changed in place after it was saved: version "
                f"{tensor._version}, expected {self.version}. "  # pyright: ignore[reportPrivateUsage]
                "Write the operation out of place, or compress this tensor with a codec that copies."
            )
        return tensor


@codecs.register("exact")
@dataclass(frozen=True, kw_only=True)
class Exact(Codec):
    """Hold the tensor itself, with its version.

    `decode` returns the same tensor, not a copy, and raises RuntimeError if it was written to in place since (as
    autograd would have; tensors made in inference mode have no version and are not watched). `nbytes` is the whole
    storage kept alive, also where the tensor is a small view of it; `size` counts the tensor alone. Takes any type.

    >>> x = torch.ones(3)
    >>> Exact().encode(x).decode() is x
    True
    """

    dtypes: ClassVar[frozenset[torch.dtype]] = frozenset()

    def encode(self, tensor: Tensor, *, generator: Generator | None = None) -> Packed:
        layout = Layout(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.device)
        version = None if tensor.is_inference() else tensor._version  # pyright: ignore[reportPrivateUsage]
        return _Held(self, layout, (tensor,), version)

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        return (tensor,)

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        return parts[0]

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return math.prod(shape) * dtype.itemsize
