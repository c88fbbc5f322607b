"""The largest elements and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Generator, Tensor

from acclimate.compression.affine import loud
from acclimate.compression.codec import Codec, codecs
from acclimate.compression.grid import Grid
from acclimate.compression.half import narrow
from acclimate.compression.layout import Layout
from acclimate.compression.packing import bit_bytes, chunks, place, positions, unpack_bits
from acclimate.compression.selection import BLOCK, kept_at_most, select
from acclimate.core.config import between, one_of

__all__ = ["Sparse"]


@codecs.register("sparse")
@dataclass(frozen=True, kw_only=True)
class Sparse(Codec):
    """Keep the fraction `keep` of the elements that is largest in magnitude, over the whole tensor; the rest is zero.

    `selection="sampled"`: elements above a quantile of 65,536 magnitudes, one from each of as many equal stretches of
    memory. Their number scatters around `k N` by `sqrt(k (1 - k) / 65536) N` and never exceeds `1.05 k N`. Exact when
    `N <= 65536`. `selection="exact"`: the `K = floor(k N)` largest, at about the same cost. Zeros are never kept, so
    `keep=1` is lossless and stores the nonzeros. Of equal magnitudes at the limit the first are kept. NaN and
    infinity count as largest, and come back as NaN or infinity where the values' type has them.

    Arguments: `keep` in [0, 1]. `values` how they are kept: `"same"` as the tensor's type, `"float32"`, `"bfloat16"`,
    `"float16"` (held to 65504, infinity is NaN), `"int8"` with one scale `max |x| / 127` (NaN if that is not finite).

    The index is the cheapest of one bit per element (N / 8 bytes), int16 within blocks of 65,536 (2 K, and 4 for each
    block), and int32 (4 K), chosen by what was kept. `size` is an upper bound, reached where `1.05 k N` (or K) elements
    are kept. Temporaries: N / 8 bytes and a few chunks of 262,144 elements. Cosine to the full tensor and gradient fall
    quickly below `keep` = 0.25: at half a byte per element and more, 4-bit codes are closer.

    >>> packed = Sparse(keep=0.5).encode(torch.tensor([3.0, -0.1, 0.0, -2.0]))
    >>> packed.decode().tolist(), packed.nbytes
    ([3.0, 0.0, 0.0, -2.0], 9)
    """

    keep: float = 0.1
    values: Literal["same", "float32", "bfloat16", "float16", "int8"] = "same"
    selection: Literal["sampled", "exact"] = "sampled"

    def __post_init__(self) -> None:
        between(0, 1, keep=self.keep)
        one_of("same", "float32", "bfloat16", "float16", "int8", values=self.values)
        one_of("sampled", "exact", selection=self.selection)

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        flat = layout.flat(tensor)
        kind = self._kind(layout.dtype)
        scale = _scale(flat, layout) if kind == torch.int8 else None

        def take(chosen: Tensor) -> Tensor:
            return narrow(chosen, kind) if scale is None else _whole(chosen, scale)

        bits, counts, taken = select(flat, self.keep, take, exact=self.selection == "exact")
        values = torch.cat(taken) if taken else torch.empty(0, dtype=kind, device=flat.device)
        form = _cheapest(layout.numel, len(values))[1]
        index = bits if form is None else _indices(bits, layout, len(values), form)
        blocks = (torch.tensor(counts, dtype=torch.int32, device=flat.device),) if form == torch.int16 else ()
        return index, values, *blocks, *(() if scale is None else (scale,))

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        index, values = parts[:2]
        flat = torch.zeros(layout.numel, dtype=layout.dtype, device=layout.device)
        if index.dtype == torch.uint8:
            filled = 0
            for start, stop in chunks(layout.numel, layout.device):
                where = positions(unpack_bits(index[start // 8 : bit_bytes(stop)], stop - start))
                end = filled + len(where)
                place(flat[start:stop], where, self._wide(parts, values[filled:end], layout.dtype))
                filled = end
        else:
            where = index.long()
            if index.dtype == torch.int16:
                counts = parts[2].long()
                begins = torch.arange(len(counts), device=index.device) * BLOCK + BLOCK // 2
                where += begins.repeat_interleave(counts, output_size=len(index))
            place(flat, where, self._wide(parts, values, layout.dtype))
        return layout.shaped(flat)

    def _wide(self, parts: tuple[Tensor, ...], values: Tensor, dtype: torch.dtype) -> Tensor:
        if values.dtype != torch.int8:
            return values.to(dtype)
        numbers = values.float().mul_(parts[-1])
        return narrow(numbers, dtype) if dtype == torch.float16 else numbers.to(dtype)

    def _kind(self, dtype: torch.dtype) -> torch.dtype:
        return dtype if self.values == "same" else getattr(torch, self.values)

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        kind, count = self._kind(dtype), prod(shape)
        kept = kept_at_most(count, self.keep, exact=self.selection == "exact")
        return _cheapest(count, kept)[0] + kept * kind.itemsize + (4 if kind == torch.int8 else 0)


def _cheapest(count: int, kept: int) -> tuple[int, torch.dtype | None]:
    """Bytes and type of the smallest index: int32, int16 within blocks, or None for one bit per element."""
    forms: list[tuple[int, torch.dtype | None]] = [
        (bit_bytes(count), None),
        (2 * kept + 4 * -(-count // BLOCK), torch.int16),
    ]
    if count < 1 << 31:
        forms.append((4 * kept, torch.int32))
    return min(forms, key=lambda form: form[0])


def _indices(bits: Tensor, layout: Layout, kept: int, form: torch.dtype) -> Tensor:
    """Where bits are set, from the start of the tensor or of each block."""
    index, filled = torch.empty(kept, dtype=form, device=bits.device), 0
    for start, stop in chunks(layout.numel, layout.device):
        where = positions(unpack_bits(bits[start // 8 : bit_bytes(stop)], stop - start))
        end = filled + len(where)
        index[filled:end] = where.add_(start) if form == torch.int32 else where.remainder_(BLOCK).sub_(BLOCK // 2)
        filled = end
    return index


def _scale(flat: Tensor, layout: Layout) -> Tensor:
    """`max |x| / 127`, one element; NaN if not finite, zero if too small for a reciprocal."""
    low, high = Grid.over(layout, "tensor", 1).extremes(flat)
    return loud(torch.maximum(-low, high) / 127)


def _whole(values: Tensor, scale: Tensor) -> Tensor:
    return values.float().mul_(torch.where(scale > 0, scale.reciprocal(), 0.0)).round_().to(torch.int8)
