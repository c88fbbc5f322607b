"""A matrix as the product of two thin ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from acclimate.compression.codec import codecs
from acclimate.compression.half import narrow
from acclimate.compression.layout import Layout
from acclimate.compression.message import Form, MessageCodec
from acclimate.core.config import one_of, whole

__all__ = ["LowRank", "factors_from", "low_rank_factors"]


@codecs.register("low_rank")
@dataclass(frozen=True, kw_only=True)
class LowRank(MessageCodec):
    """Keep `P [m, r]` and `Q [n, r]` with `X ~ P Q^T`, by randomised subspace iteration.

    `Q_0` standard normal, then `iterations` times `P = orth(X Q)`, `Q = X^T P`. Exact to rounding for matrices of
    rank r or less; else the error of the best approximation of that rank, within a factor that falls with iterations.

    Arguments: `rank` r, at most min(m, n) is used. `iterations` at least 1: each reads the matrix twice. `rows` how
    many leading axes are rows, negative to count from the end (-1: all but the last). `values` the type of the
    factors: `"same"`, `"float32"`, `"float16"` (held to 65504) or `"bfloat16"`. Without `encode(..., generator=...)`
    the start is the same for every tensor of a shape: deterministic, and unlucky only for a matrix made to be.

    As a message (`message_codec("low_rank:8")`) the factors are float16 and `iterations` is 3; P, then Q.

    Bytes: `r (m + n)` elements. A matrix with NaN or infinity decodes to NaN as a whole. Computed in float32, or
    float64 for that type. Temporaries: the factors; a dense copy for types of 16 bits, for other memory formats, and
    in decode. Source: Halko et al., SIAM Review 2011; Vogels et al., NeurIPS 2019 (one iteration, warm start: see
    `low_rank_factors`). Fails where singular values do not fall: top-k or 4-bit codes then keep more per byte.

    >>> x = torch.outer(torch.arange(4.0), torch.ones(3))
    >>> packed = LowRank(rank=1).encode(x)
    >>> packed.nbytes, torch.allclose(packed.decode(), x, atol=1e-5)
    (28, True)
    """

    main: ClassVar[str] = "rank"
    messages: ClassVar[Mapping[str, Any]] = {"values": "float16", "iterations": 3}
    rank: int = 4
    iterations: int = 2
    rows: int = 1
    values: Literal["same", "float32", "float16", "bfloat16"] = "same"

    def __post_init__(self) -> None:
        whole(1, rank=self.rank, iterations=self.iterations)
        one_of("same", "float32", "float16", "bfloat16", values=self.values)
        if not isinstance(self.rows, int) or self.rows == 0:
            raise ValueError(f"rows must be a whole number other than 0, found {self.rows!r}.")

    def _matrix(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Rows, columns and rank."""
        rows, columns = prod(shape[: self.rows]), prod(shape[self.rows :])
        return rows, columns, min(self.rank, rows, columns)

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        rows, columns, rank = self._matrix(layout.shape)
        factors = factors_from(tensor.reshape(rows, columns), rank, self.iterations, generator)
        return tuple(narrow(factor, self._kind(layout.dtype)) for factor in factors)

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        left, right = (_plain(part) for part in parts)
        product = left @ right.T
        out = layout.shaped(layout.empty())
        return out.copy_(product.view(layout.shape))

    def _kind(self, dtype: torch.dtype) -> torch.dtype:
        return dtype if self.values == "same" else getattr(torch, self.values)

    def form(self, shape: Sequence[int], dtype: torch.dtype) -> Form:
        rows, columns, rank = self._matrix(shape)
        kind = self._kind(dtype)
        return ((rows, rank), kind), ((columns, rank), kind)


def factors_from(
    matrix: Tensor, rank: int, iterations: int, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """`low_rank_factors` of `matrix [m, n]` from a random start, the same one for a shape without a generator.

    In float32, or float64 for that type.
    """
    if matrix.dtype.itemsize == 2:
        matrix = matrix.float()
    if generator is None:
        generator = Generator(matrix.device).manual_seed(0)
    start = torch.empty(matrix.shape[1], rank, dtype=matrix.dtype, device=matrix.device).normal_(generator=generator)
    return low_rank_factors(matrix, start, iterations)


def _plain(factor: Tensor) -> Tensor:
    """A row-major copy in float32 or more, aligned: so that one product of factors has one result, bit for bit."""
    kind = torch.promote_types(factor.dtype, torch.float32)
    return factor.to(kind, copy=True, memory_format=torch.contiguous_format)


def low_rank_factors(matrix: Tensor, start: Tensor, iterations: int = 1) -> tuple[Tensor, Tensor]:
    """`P [m, r]` with orthonormal columns and `Q [n, r]`, so that `P Q^T` approximates `matrix [m, n]`.

    `start [n, r]` spans a guess of the row space: random, or the last Q of a matrix that changes slowly (warm start,
    then one iteration is enough). NaN throughout if the matrix is not finite.
    """
    right = start
    left = matrix.new_zeros(matrix.shape[0], start.shape[1])
    finite = torch.where(matrix.sum().isfinite(), 0.0, torch.nan)
    for number in range(iterations):
        if number:
            right = torch.linalg.qr(right).Q  # keeps the directions apart when one is much stronger
        left = torch.linalg.qr(matrix @ right).Q
        right = matrix.T @ left
    return left + finite, right + finite
