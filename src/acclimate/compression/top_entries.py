"""The largest entries of a matrix, as many of them each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from acclimate.compression.codec import codecs
from acclimate.compression.half import narrow
from acclimate.compression.layout import Layout
from acclimate.compression.message import Form, MessageCodec, matrix_shape, placed, two_byte
from acclimate.compression.packing import positions, unpack_bits
from acclimate.compression.selection import kept_at_most, select
from acclimate.core.config import between, one_of, positive

__all__ = ["TopEntries"]


@codecs.register("top_entries")
@dataclass(frozen=True, kw_only=True)
class TopEntries(MessageCodec):
    """Keep the `K = max(1, floor(keep N C))` entries of largest magnitude over the whole matrix; the others decode to
    zero.

    Arguments: `keep` above 0, at most 1. `values` as for `OfEvery`.

    Message: the values `[K]`, then int32 places in row-major order, ascending. Where fewer entries are not zero, zeros
    at place 0 fill up. Bytes: `6 K`; N C below 2^31. Of equal magnitudes at the limit the first are kept. NaN and
    infinity count as largest, and decode to NaN or infinity in their places. Temporaries: `N C / 8` bytes, the places,
    and a few chunks of 262,144 entries. `Sparse` takes fewer bytes, a number that depends on the content. Fails as
    `OfEvery` does where small entries matter; better for the same number of entries, at 6 bytes for each, not 2.5.

    >>> packed = TopEntries(keep=0.5).encode(torch.tensor([[3.0, -0.1], [0.5, -2.0]]))
    >>> packed.nbytes, packed.decode().tolist()
    (12, [[3.0, 0.0], [0.0, -2.0]])
    """

    main: ClassVar[str] = "keep"
    keep: float = 0.05
    values: Literal["auto", "float16", "bfloat16", "float32"] = "auto"

    def __post_init__(self) -> None:
        positive(keep=self.keep)
        between(0, 1, keep=self.keep)
        one_of("auto", "float16", "bfloat16", "float32", values=self.values)

    def form(self, shape: Sequence[int], dtype: torch.dtype) -> Form:
        rows, columns = matrix_shape(shape)
        if rows * columns >= 1 << 31:
            raise ValueError(f"{self.name} counts places in int32, and {list(shape)} has too many. Cut the matrix.")
        kept = kept_at_most(rows * columns, self._share(rows * columns), exact=True)
        return ((kept,), two_byte(self.values, dtype)), ((kept,), torch.int32)

    def _share(self, count: int) -> float:
        """Of so many entries, at least one."""
        return max(self.keep, 1 / max(count, 1))

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        ((kept,), kind), _ = self.form(layout.shape, layout.dtype)
        values = torch.zeros(kept, dtype=kind, device=layout.device)
        places = torch.zeros(kept, dtype=torch.int32, device=layout.device)
        flat = tensor.reshape(-1)
        bits, counts, taken = select(flat, self._share(len(flat)), lambda chosen: narrow(chosen, kind), exact=True)
        if (found := sum(counts)) > 0:
            values[:found] = torch.cat(taken)
            places[:found] = positions(unpack_bits(bits, len(flat)))
        return values, places

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        values, places = parts
        out = torch.zeros(layout.shape, dtype=layout.dtype, device=layout.device)
        out.view(-1).index_add_(0, places, narrow(values, layout.dtype))  # added, since zeros share place 0
        return placed(out, layout)
