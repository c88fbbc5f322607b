"""Two bytes per number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from acclimate.compression.codec import Codec, codecs
from acclimate.compression.layout import Layout
from acclimate.compression.packing import chunks
from acclimate.core.config import one_of

__all__ = ["Half", "narrow"]

_LARGEST = 65504.0


@codecs.register("half")
@dataclass(frozen=True, kw_only=True)
class Half(Codec):
    """Round to float16 or bfloat16.

    `kind="float16"`: relative error 2^-11 down to 6e-5; what exceeds 65504 is held to 65504, and infinity becomes NaN
    rather than a number. `kind="bfloat16"`: relative error 2^-8, the range of float32. 2 bytes per element, also where
    the tensor has the type already (a copy). Temporaries: one chunk of 262,144 elements.

    >>> Half().encode(torch.tensor([1.0, 1e6])).decode()
    tensor([1.0000e+00, 6.5504e+04])
    """

    kind: Literal["float16", "bfloat16"] = "float16"

    def __post_init__(self) -> None:
        one_of("float16", "bfloat16", kind=self.kind)

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        return (narrow(layout.flat(tensor), getattr(torch, self.kind)),)

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        return layout.shaped(parts[0].to(layout.dtype, copy=True))

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return 2 * math.prod(shape)


def narrow(flat: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy `[N]` in another floating type; in float16 large numbers are held to 65504 and infinity is NaN."""
    if dtype != torch.float16 or flat.dtype == torch.float16:
        return flat.to(dtype, copy=True)
    out = torch.empty(flat.shape, dtype=dtype, device=flat.device)
    for start, stop in chunks(flat.numel(), flat.device):
        values = flat[start:stop]
        out[start:stop] = values.clamp(-_LARGEST, _LARGEST).add_(values, alpha=0.0)  # 0 * infinity is NaN
    return out
