"""The largest entry of every few."""

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
from acclimate.core.config import one_of

__all__ = ["OfEvery"]


@codecs.register("of_every")
@dataclass(frozen=True, kw_only=True)
class OfEvery(MessageCodec):
    """Of every `of` consecutive entries of a row keep the one of largest magnitude; the others decode to zero.

    Arguments: `of` is 2, 4, 8 or 16. `values` how entries are kept: `"auto"`, float16 but bfloat16 for matrices of that
    type, or `"float16"` (held to 65504), `"bfloat16"`, `"float32"`.

    Message: the values `[N, C / of]`, then their places within the groups in 4 bits, two groups a byte, the first in
    the high half. Bytes: `2.5 N C / of`; C a multiple of `of`, and the number of groups even. Of equal magnitudes any
    may be kept. NaN counts as largest; a group with NaN or infinity decodes to NaN or infinity there. Temporaries: the
    magnitudes. Fails with feedback at high ratios: entries that are never the largest of their group are never sent.
    Source: CompactFusion, NeurIPS 2025 (an ablation there).

    >>> packed = OfEvery(of=4).encode(torch.tensor([[1.0, -3.0, 2.0, 0.0, 5.0, 0.0, 0.0, 4.0]]))
    >>> packed.nbytes, packed.decode().tolist()
    (5, [[0.0, -3.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0]])
    """

    main: ClassVar[str] = "of"
    of: int = 8
    values: Literal["auto", "float16", "bfloat16", "float32"] = "auto"

    def __post_init__(self) -> None:
        one_of(2, 4, 8, 16, of=self.of)
        one_of("auto", "float16", "bfloat16", "float32", values=self.values)

    def form(self, shape: Sequence[int], dtype: torch.dtype) -> Form:
        rows, columns = matrix_shape(shape)
        groups = rows * columns // self.of
        if columns % self.of or groups % 2:
            raise ValueError(
                f"{self.name} keeps one of every {self.of} channels and packs two groups a byte: {columns} channels "
                f"must divide by {self.of} and the groups of {list(shape)} be even in number. Pad the matrix."
            )
        kept = (rows, columns // self.of)
        return (kept, two_byte(self.values, dtype)), ((groups // 2,), torch.uint8)

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        (shape, kind), _ = self.form(layout.shape, layout.dtype)
        groups = tensor.reshape(-1, self.of)
        where = groups.abs().argmax(1, keepdim=True)
        places = where.view(-1).to(torch.uint8)
        return narrow(groups.gather(1, where).view(-1), kind).view(shape), places[0::2] << 4 | places[1::2]

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        values, places = parts
        where = torch.stack((places >> 4, places & 15), 1).view(-1, 1).long()
        out = torch.zeros(layout.shape, dtype=layout.dtype, device=layout.device)
        out.view(-1, self.of).scatter_(1, where, narrow(values.reshape(-1), layout.dtype)[:, None])
        return placed(out, layout)
