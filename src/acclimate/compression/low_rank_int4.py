"""A matrix as the product of two thin ones, in four bits per number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from acclimate.compression.codec import codecs
from acclimate.compression.half import narrow
from acclimate.compression.layout import Layout
from acclimate.compression.low_rank import factors_from
from acclimate.compression.message import Form, MessageCodec, matrix_shape, placed
from acclimate.core.config import whole

__all__ = ["LowRankInt4"]


@codecs.register("low_rank_int4")
@dataclass(frozen=True, kw_only=True)
class LowRankInt4(MessageCodec):
    """`X ~ U V^T` as in `LowRank`, each column of U and of V in 16 even steps from its smallest to its largest number.

    Per column `m = min z`, `s = (max z - min z) / 15`, `q = clamp(round((z - m) / s), 0, 15)`, decoded to `q s + m`;
    m and s in float16, held to 65504. Two consecutive rows share a byte, the even one in its low half. In the bytes of
    four ranks of float16, four times as many directions: better wherever a matrix is not of low rank, as differences of
    activations are not.

    Arguments: `rank` r, at most min(N, C) is used; `iterations` at least 1, products with the matrix in turn (see
    `low_rank_factors`). Without `encode(..., generator=...)` the start is the same for every matrix of a shape.

    Bytes: `(N + C) r / 2 + 8 r`, N and C even. A matrix with NaN or infinity decodes to NaN as a whole, one of zeros
    to zeros. Temporaries: the factors in float32, a copy for types of 16 bits, the product in decode. The product is
    the same bit for bit wherever library, processor and threads are. Fails where singular values do not fall: one
    message then carries next to nothing (relative error 0.97 on normal entries at rank 32 of 1088), and only many
    messages of what is left do. Source: CompactFusion, NeurIPS 2025.

    >>> x = torch.outer(torch.arange(4.0), torch.ones(6))
    >>> packed = LowRankInt4(rank=1).encode(x)
    >>> packed.nbytes, torch.allclose(packed.decode(), x, atol=0.01)
    (13, True)
    """

    main: ClassVar[str] = "rank"
    rank: int = 32
    iterations: int = 3

    def __post_init__(self) -> None:
        whole(1, rank=self.rank, iterations=self.iterations)

    def form(self, shape: Sequence[int], dtype: torch.dtype) -> Form:
        rows, columns = matrix_shape(shape)
        if rows % 2 or columns % 2:
            raise ValueError(f"{self.name} packs two rows a byte; expected even numbers, found a matrix {list(shape)}.")
        rank = min(self.rank, rows, columns)
        scales = ((rank,), torch.float16), ((rank,), torch.float16)
        return ((rows // 2, rank), torch.uint8), *scales, ((columns // 2, rank), torch.uint8), *scales

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        left, right = factors_from(tensor, min(self.rank, *layout.shape), self.iterations, generator)
        return *_nibbles(left), *_nibbles(right)

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        product = _numbers(*parts[:3]) @ _numbers(*parts[3:]).T
        return placed(narrow(product.view(-1), layout.dtype).view(layout.shape), layout)


def _nibbles(factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes `uint8 [n / 2, r]`, steps and smallest numbers `[r]` of a factor `[n, r]`."""
    if not factor.numel():
        empty = torch.zeros(factor.shape[1], dtype=torch.float16, device=factor.device)
        return torch.zeros(len(factor) // 2, factor.shape[1], dtype=torch.uint8, device=factor.device), empty, empty
    low, high = factor.amin(0), factor.amax(0)
    smallest, step = (narrow(values.float(), torch.float16) for values in (low, (high - low) / 15))
    each = torch.where(step > 0, step.float().reciprocal(), 0.0)  # as the receiver sees them: rounded
    codes = ((factor.float() - smallest.float()) * each).round_().clamp_(0, 15).nan_to_num_(0).to(torch.uint8)
    return codes[0::2] | codes[1::2] << 4, step, smallest


def _numbers(codes: Tensor, step: Tensor, smallest: Tensor) -> Tensor:
    """The factor `[n, r]` in float32."""
    both = torch.stack((codes & 15, codes >> 4), 1).reshape(2 * len(codes), codes.shape[1])
    return both.float().mul_(step.float()).add_(smallest.float())
