"""One bit per element: all that the backward of a gate needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from acclimate.compression.codec import FLOATING, Codec, codecs
from acclimate.compression.layout import Layout
from acclimate.compression.packing import bit_bytes, chunks, lookup_bits, pack_bits
from acclimate.core.config import one_of

__all__ = ["Bits"]


@codecs.register("bits")
@dataclass(frozen=True, kw_only=True)
class Bits(Codec):
    """Keep one predicate of each element, 32 times smaller than float32; the backward of the gate is exact.

    `predicate` is one of

    * `"positive"`: `x > 0`, decodes to 1 and 0 (relu);
    * `"sign"`: `x > 0`, decodes to 1 and -1 (leaky relu);
    * `"inside"`: `low < x < high`, or `<=` with `inclusive` (relu6, hardtanh: strict; clamp: inclusive); decodes to a
      value within the range and one outside. None for no limit on that side;
    * `"mask"`: `x != 0`, decodes to `scale` and 0 (dropout). Without `scale` the largest element is taken and stored;
      a tensor with more than two values is not told apart. bool tensors decode to themselves.

    NaN counts as not positive, not inside and, for a mask, as set. Takes floating types, a mask also bool. Bytes:
    `ceil(N / 8)`, and one element for a scale that is measured. Temporaries: one byte per element of a chunk.

    >>> Bits().encode(torch.tensor([-1.0, 0.0, 2.5])).decode()
    tensor([0., 0., 1.])
    """

    dtypes: ClassVar[frozenset[torch.dtype]] = FLOATING | {torch.bool}
    predicate: Literal["positive", "sign", "inside", "mask"] = "positive"
    low: float | None = None
    high: float | None = None
    inclusive: bool = False
    scale: float | None = None

    def __post_init__(self) -> None:
        one_of("positive", "sign", "inside", "mask", predicate=self.predicate)
        limits = [limit for limit in (self.low, self.high) if limit is not None]
        if (self.predicate == "inside") != bool(limits) or limits != sorted(limits):
            raise ValueError(
                f"found low={self.low!r} and high={self.high!r} for predicate={self.predicate!r}. Expected "
                "low <= high, at least one of them, for 'inside', and neither for the others."
            )
        if self.scale is not None and (self.predicate != "mask" or not math.isfinite(self.scale) or not self.scale):
            raise ValueError(f"scale={self.scale!r} must be a finite number other than 0, for predicate='mask' alone.")

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        if tensor.dtype == torch.bool and self.predicate != "mask":
            raise TypeError(
                f"Bits(predicate={self.predicate!r}) takes floating types, found torch.bool. Choose 'mask'."
            )
        flat = layout.flat(tensor)
        packed = torch.empty(bit_bytes(layout.numel), dtype=torch.uint8, device=layout.device)
        for start, stop in chunks(layout.numel, layout.device):
            packed[start // 8 : bit_bytes(stop)] = pack_bits(self._holds(flat[start:stop]))
        if not self._measured(tensor.dtype):
            return (packed,)
        return packed, flat.amax()[None] if layout.numel else flat.new_zeros(1)

    def _holds(self, x: Tensor) -> Tensor:
        if self.predicate == "mask":
            return x if x.dtype == torch.bool else x != 0
        if self.predicate != "inside":
            return x > 0
        above, below = (torch.ge, torch.le) if self.inclusive else (torch.gt, torch.lt)
        if self.low is None or self.high is None:
            return below(x, self.high) if self.high is not None else above(x, self.low or 0.0)
        return above(x, self.low).logical_and_(below(x, self.high))

    def _measured(self, dtype: torch.dtype) -> bool:
        return self.predicate == "mask" and self.scale is None and dtype != torch.bool

    def _values(self, parts: tuple[Tensor, ...]) -> tuple[Tensor | float, Tensor | float]:
        if self.predicate == "inside":
            return _inside(self.low, self.high)
        if self.predicate == "mask":
            return (parts[1][0] if len(parts) > 1 else self.scale or 1.0), 0.0
        return 1.0, 0.0 if self.predicate == "positive" else -1.0

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        flat = layout.empty()
        values = self._values(parts)
        for start, stop in chunks(layout.numel, layout.device):
            lookup_bits(parts[0][start // 8 : bit_bytes(stop)], flat[start:stop], *values)
        return layout.shaped(flat)

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return bit_bytes(math.prod(shape)) + (dtype.itemsize if self._measured(dtype) else 0)


def _inside(low: float | None, high: float | None) -> tuple[float, float]:
    """A value within the limits and one beyond, by at least 1 and by enough to survive rounding."""
    if low is None or high is None:
        limit, away = (high, -1.0) if high is not None else (low or 0.0, 1.0)
        reach = away * max(1.0, abs(limit))
        return limit + reach, limit - reach
    return low + (high - low) / 2, low - max(1.0, abs(low))
