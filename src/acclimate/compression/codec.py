"""The contract: a codec turns a tensor into a few plain tensors and back, and counts every byte."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from acclimate.compression.layout import Layout, dense
from acclimate.core.config import Configured
from acclimate.core.meter import tensor_bytes
from acclimate.core.registry import Registry

__all__ = ["FLOATING", "Codec", "Packed", "codecs"]

FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
"""Types that the codecs of numbers take."""


@dataclass(frozen=True, eq=False)
class Packed:
    """One compressed tensor: the codec, the layout of the tensor, and the `parts` that hold its content.

    Parts are plain tensors and may be sent elsewhere: `Packed(codec, layout, parts)` puts them together again.
    """

    codec: Codec
    layout: Layout
    parts: tuple[Tensor, ...]

    def decode(self) -> Tensor:
        """A fresh dense tensor with the shape, type, strides and device of the original.

        May be called any number of times, and changes nothing. A tensor with gaps or overlaps comes back contiguous.
        """
        with torch.no_grad():
            return self.codec.unpack(self.parts, self.layout)

    @property
    def nbytes(self) -> int:
        """Bytes kept alive: the unique storages of the parts."""
        return tensor_bytes(self.parts)

    @property
    def dense_nbytes(self) -> int:
        """Bytes of the tensor that `decode` returns."""
        return self.layout.nbytes

    def to(self, device: torch.device | str) -> Packed:
        """The same content on another device, where it is then decoded."""
        home = torch.device(device)
        return replace(
            self, layout=replace(self.layout, device=home), parts=tuple(part.to(home) for part in self.parts)
        )


@dataclass(frozen=True, kw_only=True)
class Codec(Configured, ABC):
    """Settings of one way to compress a tensor. Frozen, shared freely between tensors and threads.

    A codec in a file of its own implements `pack`, `unpack` and `size`. Nothing that `pack` returns may share
    storage with its input, and nothing that `unpack` returns with the parts.
    """

    dtypes: ClassVar[frozenset[torch.dtype]] = FLOATING

    def encode(self, tensor: Tensor, *, generator: Generator | None = None) -> Packed:
        """Compress a tensor, without a graph and without keeping it alive.

        `generator` is drawn from by codecs that round or start at random, on the device of the tensor.
        TypeError for a type that the codec does not take. Tensors with gaps or overlaps are copied first.
        """
        if self.dtypes and tensor.dtype not in self.dtypes:
            known = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in self.dtypes))
            raise TypeError(
                f"{type(self).__name__} takes tensors of {known}, found {tensor.dtype}. "
                "Choose Exact() for other types, or Bits(predicate='mask') for bool."
            )
        with torch.no_grad():
            tensor = dense(tensor)
            layout = Layout.of(tensor)
            return Packed(self, layout, self.pack(tensor, layout, generator))

    @abstractmethod
    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        """The parts for a dense tensor."""

    @abstractmethod
    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        """The tensor that these parts stand for."""

    @abstractmethod
    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Bytes that a tensor of this shape and type will take, without looking at one.

        Exact, unless the page of the codec calls it a bound.
        """


codecs: Registry[Codec] = Registry("codec", "acclimate.compression", Codec)
"""Every codec by name; `codecs.build(codec.config())` is the codec again."""
