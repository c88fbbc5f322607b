"""Numbers in 8 or 4 bits with a scale per tensor, channel, row or block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Generator, Tensor

from acclimate.compression.affine import code_bytes, code_range, from_codes, loud, to_codes
from acclimate.compression.codec import Codec, codecs
from acclimate.compression.grid import SHARED, Grid, Shared, group_count
from acclimate.compression.layout import Layout
from acclimate.core.config import one_of, whole

__all__ = ["Quantized"]


@codecs.register("quantized")
@dataclass(frozen=True, kw_only=True)
class Quantized(Codec):
    """Whole codes `q` with `x ~ s q` (symmetric) or `x ~ s (q - q_min) + min` (affine), in float32.

    Symmetric: `s = max |x| / L`, L = 127 for 8 bits and 7 for 4, and zero stays zero. Affine: `s = (max - min) / 255`
    or `/ 15`. Each group has its own scale. Rounded to the nearest code, `|error| <= s / 2`; with `stochastic`, up with
    the probability of the fraction, so that the mean error is 0 and `|error| <= s`.

    Arguments: `bits` 8 or 4. `per` what shares a scale: `"tensor"`, `"channel"` (axis `parameter`, usually 1), `"row"`
    (the last `parameter` axes), `"block"` (`parameter` elements that follow each other in memory). `symmetric`.
    `stochastic` needs `encode(..., generator=...)`.

    Bytes: N or ceil(N / 2), and 4 (symmetric) or 8 for each group. A group that holds NaN or infinity, or more than
    float32 can, decodes to NaN as a whole. Groups within 2^-126 of zero times L decode to zero (symmetric) or their
    smallest element. float64 is computed in float32. Temporaries: a few chunks of 262,144 elements. Groups that lie
    scattered in memory, such as rows of a channels-last tensor, cost one dense copy each way.

    >>> x = torch.tensor([[-1.0, 0.5, 0.0], [0.0, 0.0, 300.0]])
    >>> packed = Quantized(per="row").encode(x)
    >>> packed.nbytes, (packed.decode() - x).abs().amax(1) <= torch.tensor([1.0, 300.0]) / 127 / 2
    (14, tensor([True, True]))
    """

    bits: Literal[8, 4] = 8
    per: Shared = "tensor"
    parameter: int = 1
    symmetric: bool = True
    stochastic: bool = False

    def __post_init__(self) -> None:
        one_of(8, 4, bits=self.bits)
        one_of(*SHARED, per=self.per)
        whole(1 if self.per in ("group", "block") else 0, parameter=self.parameter)

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        if self.stochastic and generator is None:
            raise ValueError("stochastic rounding draws from a generator. Give encode(tensor, generator=...).")
        grid = Grid.over(layout, self.per, self.parameter)
        flat = grid.flat(tensor, layout)
        low, high = grid.extremes(flat)
        lowest, highest = code_range(self.bits)
        if self.symmetric:
            stored = (loud(torch.maximum(-low, high) / highest),)
        else:
            levels = highest - lowest
            stored = (loud(high / levels - low / levels), low)  # the difference itself may overflow
        draw = generator if self.stochastic else None
        return to_codes(flat, grid, stored[0], self._offset(*stored), self.bits, generator=draw), *stored

    def _offset(self, scale: Tensor, low: Tensor | None = None) -> Tensor | None:
        """What the code 0 stands for; None for zero."""
        return None if low is None else low - code_range(self.bits)[0] * scale

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        codes, scale = parts[:2]
        offset = self._offset(scale, parts[2] if len(parts) > 2 else None)
        grid = Grid.over(layout, self.per, self.parameter)
        return grid.shaped(from_codes(codes, grid, scale, offset, self.bits, layout.dtype), layout)

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        numbers = 1 if self.symmetric else 2
        return code_bytes(prod(shape), self.bits) + 4 * numbers * group_count(shape, self.per, self.parameter)
