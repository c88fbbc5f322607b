"""Nothing but a shape: for tensors whose values backward never reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from acclimate.compression.codec import Codec, codecs
from acclimate.compression.layout import Layout

__all__ = ["Stub"]


@codecs.register("stub")
@dataclass(frozen=True, kw_only=True)
class Stub(Codec):
    """Keep shape, strides, type and device; decode to uninitialised memory. 0 bytes.

    For inputs of frozen convolutions and linear layers, of pooling, and of batch norms in eval mode with frozen
    weights, whose backward needs the shape and the memory format and never the values. Takes any type. What `decode`
    returns lives as long as the caller holds it; where the operating system hands out pages on first touch, it costs
    none while nobody reads it.

    >>> image = torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    >>> Stub().encode(image).decode().stride() == image.stride()
    True
    """

    dtypes: ClassVar[frozenset[torch.dtype]] = frozenset()

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        return ()

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        return torch.empty_strided(layout.shape, layout.stride, dtype=layout.dtype, device=layout.device)

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return 0
