"""Which entries of a vector are sent, how many, and in which type."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from acclimate.compression.packing import positions, unpack_bits
from acclimate.compression.selection import select
from acclimate.core.config import one_of, whole

__all__ = ["Entries", "largest"]

_INDEX_BITS = 32


def largest(vector: Tensor, kept: int) -> Tensor:
    """Where the `kept` entries of largest magnitude are, ascending: `[d] -> int64 [kept]`.

    Of equal magnitudes the lowest indices are taken, zeros too, so that there are always exactly `kept`: packets of one
    message have the same length on every rank. Nothing is sorted; a sample brackets the limit and the count is then
    trimmed to the exact one. What is left of a vector v after it obeys
    `|v - top(v)|^2 <= (1 - k / d) |v|^2` [S].

    Arguments:
        vector: finite numbers, `[d]`.
        kept: k, from 1 to d.

    Raises:
        ValueError: NaN or infinity among the numbers, or a k out of range.

    >>> largest(torch.tensor([1.0, -3.0, 3.0, 0.5]), 2).tolist(), largest(torch.zeros(4), 2).tolist()
    ([1, 2], [0, 1])
    """
    count = vector.numel()
    whole(1, kept=kept)
    if kept > count:
        raise ValueError(f"kept is {kept}, but the vector has {count} entries. Keep at most that many.")
    if not bool(vector.isfinite().all()):
        bad = int(vector.isfinite().logical_not().sum())
        raise ValueError(
            f"{bad} of {count} entries are NaN or infinite, expected finite ones. Lower the step size, or leave this "
            "batch out on every rank."
        )
    if kept == count:
        return torch.arange(count, device=vector.device)
    bits, _, _ = select(vector, kept / count, lambda chosen: chosen[:0], exact=True)
    flags = unpack_bits(bits, count)
    chosen = positions(flags)
    if len(chosen) == kept:
        return chosen
    chosen = torch.cat((chosen, positions(flags.logical_not())[: kept - len(chosen)]))  # zeros are all that is left
    return chosen.sort().values


@dataclass(frozen=True, kw_only=True)
class Entries:
    """How a wire ratio becomes entries: their number, the type of their values, and what counts against the ratio.

    With S_g bits of a dense vector of d entries and beta bits for each kept entry, `k = floor(ratio S_g / beta)`, at
    least 1 [D]. Where all values without indices take no more bits than `ratio S_g`, all are sent: dense.

    Arguments:
        values: type on the wire, if that takes fewer bits than the vector's own, which is sent otherwise, as with
            `"same"`. What rounding takes away stays in the error memory: float64 travels as float32 by default, and
            with a ratio of 1 is that of synchronous SGD to the bit only with `"same"`.
        count_indices: whether beta counts the 32 bits of an index [I]. Without, ratio is k / d for float32.

    >>> Entries().kept(0.1, 1000, torch.float32), Entries(values="float16").kept(0.1, 1000, torch.float32)
    (50, 66)
    >>> Entries(count_indices=False).kept(0.1, 1000, torch.float32), Entries().kept(1.0, 1000, torch.float32)
    (100, None)
    """

    values: Literal["same", "float32", "float16", "bfloat16"] = "float32"
    count_indices: bool = True

    def __post_init__(self) -> None:
        one_of("same", "float32", "float16", "bfloat16", values=self.values)

    def kind(self, dtype: torch.dtype) -> torch.dtype:
        """Type on the wire of entries of a vector of this type."""
        wanted: torch.dtype = dtype if self.values == "same" else getattr(torch, self.values)
        return wanted if wanted.itemsize < dtype.itemsize else dtype

    def bits(self, dtype: torch.dtype) -> int:
        """beta: bits that one kept entry counts for."""
        return 8 * self.kind(dtype).itemsize + (_INDEX_BITS if self.count_indices else 0)

    def kept(self, ratio: float, count: int, dtype: torch.dtype) -> int | None:
        """How many of `count` entries are sent at a wire ratio; None for all of them, without indices.

        Raises:
            ValueError: a ratio outside (0, 1], or no entries.
        """
        whole(1, count=count)
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must lie above 0 and at most at 1, found {ratio!r}.")
        budget = ratio * 8 * dtype.itemsize * count
        if budget >= 8 * self.kind(dtype).itemsize * count:
            return None
        return min(count, max(1, math.floor(budget / self.bits(dtype) + 1e-6)))  # 0.29 * 100 is 28.999999999999996

    def rounded(self, values: Tensor) -> Tensor:
        """Values in the type they are sent in; those too large for it become its largest number."""
        kind = self.kind(values.dtype)
        if kind == values.dtype:
            return values
        limit = torch.finfo(kind).max
        return values.clamp(-limit, limit).to(kind)
