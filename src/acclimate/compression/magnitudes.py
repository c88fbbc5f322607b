"""Few bits per entry and two vectors of scales: what messages of one and of two bits share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from acclimate.compression.codec import Packed
from acclimate.compression.half import narrow
from acclimate.compression.layout import Layout
from acclimate.compression.message import Form, MessageCodec, matrix_shape, placed, two_byte
from acclimate.compression.packing import chunk_length
from acclimate.compression.planes import look_up
from acclimate.core.config import one_of

__all__ = ["Magnitudes", "magnitude_scales"]

_SERIAL = (1 << 15) - 1
"""Entries that torch works on without waking its threads, which on a processor shared by several ranks wait for each
other far longer than they save; the bits then depend on no number of threads either."""

_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, kw_only=True)
class Magnitudes(MessageCodec):
    """Codes of `bits` bits against the rank-1 model `|x_ij| ~ u_i c_j`; see `magnitude_scales`.

    A codec in a file of its own gives the codes of a few rows, and the levels that the codes of a byte stand for.
    """

    bits: ClassVar[int]
    scales: Literal["auto", "float16", "bfloat16", "float32"] = "auto"

    def __post_init__(self) -> None:
        one_of("auto", "float16", "bfloat16", "float32", scales=self.scales)

    @abstractmethod
    def codes(self, values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Packed codes `uint8 [R C bits / 8]` of values `[R, C]`, with scales `[R, 1]` and `[1, C]` in float32."""

    @abstractmethod
    def levels(self) -> Tensor:
        """What each byte stands for, before scales: float32 `[256, 8 / bits]`."""

    def form(self, shape: Sequence[int], dtype: torch.dtype) -> Form:
        rows, columns = matrix_shape(shape)
        each = 8 // self.bits
        if columns % each:
            raise ValueError(
                f"{self.name} packs {each} channels a byte, and {columns} channels in {list(shape)} do not divide by "
                f"{each}. Pad the channels, or choose another codec."
            )
        kind = two_byte(self.scales, dtype)
        return ((rows, columns // each), torch.uint8), ((rows,), kind), ((columns,), kind)

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        return self._pack(tensor.contiguous(), None)

    def encode_change(self, tensor: Tensor, base: Tensor) -> Packed:
        self.form(tensor.shape, tensor.dtype)
        with torch.no_grad():
            tensor, base = tensor.detach().contiguous(), self.like(base, tensor).contiguous()
            return Packed(self, Layout.of(tensor), self._pack(tensor, base))

    def _pack(self, matrix: Tensor, base: Tensor | None) -> tuple[Tensor, ...]:
        (shape, _), (_, kind), _ = self.form(matrix.shape, matrix.dtype)
        rows, columns = magnitude_scales(matrix, kind, base)
        along, across = rows.float()[:, None], columns.float()[None]
        packed = torch.empty(shape, dtype=torch.uint8, device=matrix.device)
        for start, stop in _row_chunks(matrix):
            values = _difference(matrix, base, start, stop)
            packed[start:stop].view(-1)[:] = self.codes(values, along[start:stop], across)
        return packed, rows, columns

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        out = torch.empty(layout.shape, dtype=layout.dtype, device=layout.device)
        return placed(self._unpack(parts, out, None), layout)

    def added(self, packed: Packed, base: Tensor, out: Tensor | None = None) -> Tensor:
        layout = packed.layout
        with torch.no_grad():
            base = self.like(base, layout)
            if out is not None and self.like(out, layout).is_contiguous():
                self._unpack(packed.parts, out.detach(), base)
                return out
            fresh = torch.empty(layout.shape, dtype=layout.dtype, device=layout.device)
            self._unpack(packed.parts, fresh, base)
            return fresh if out is None else out.copy_(fresh)

    def _unpack(self, parts: tuple[Tensor, ...], out: Tensor, base: Tensor | None) -> Tensor:
        """The decoded matrix on top of a base, if there is one, in a row-major `out`, chunk by chunk in the cache."""
        packed, rows, columns = parts
        table, along, across = self.levels().to(out.device), rows.float()[:, None], columns.float()[None]
        direct = out.dtype == torch.float32 and base is None
        step = max((stop - start for start, stop in _row_chunks(out)), default=0)
        work = torch.empty(0 if direct else step, out.shape[1], device=out.device)
        for start, stop in _row_chunks(out):
            part = out[start:stop]
            values = part if direct else work[: stop - start]
            look_up(table, packed[start:stop], values)
            values.mul_(along[start:stop]).mul_(across)
            if out.dtype == torch.float16:
                values.clamp_(-_LARGEST, _LARGEST)
            if base is not None:
                torch.add(values.to(out.dtype), base[start:stop], out=part)
            elif not direct:
                part.copy_(values)
        return out


def magnitude_scales(matrix: Tensor, kind: torch.dtype, base: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`u [N]` and `c [C]` of a matrix `[N, C]`, or of its difference to a base, in type `kind`.

    `c_j = mean_i |x_ij|` and `u_i = mean_j |x_ij| / mean_ij |x_ij|`, in float32; in float16 both are held to 65504.
    Zero for a matrix of zeros; u is NaN throughout where an entry is not finite, or the sum does not fit float32.
    """
    height, width = matrix.shape
    rows = torch.zeros(height, device=matrix.device)
    columns = torch.zeros(width, dtype=torch.float64, device=matrix.device)
    for start, stop in _row_chunks(matrix):
        values = _difference(matrix, base, start, stop)
        values = values.abs() if values.dtype == torch.float32 else values.float().abs_()
        torch.sum(values, 1, out=rows[start:stop])
        columns += values.sum(0)
    total = rows.sum(dtype=torch.float64)
    total = torch.where(total.isfinite(), total, torch.nan).clamp_(min=torch.finfo(torch.float64).tiny)
    along = rows.double().mul_(height).div_(total).float()
    return narrow(along, kind), narrow(columns.div_(max(height, 1)).float(), kind)


def _difference(matrix: Tensor, base: Tensor | None, start: int, stop: int) -> Tensor:
    return matrix[start:stop] if base is None else matrix[start:stop] - base[start:stop]


def _row_chunks(matrix: Tensor) -> Iterator[tuple[int, int]]:
    """`(start, stop)` over the rows: as many at a time as stay in a processor's cache, with what is made of them."""
    rows, columns = matrix.shape
    limit = _SERIAL if matrix.device.type == "cpu" else chunk_length(matrix.device) // 2
    step = max(1, limit // max(columns, 1))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
