"""Numbers as small whole codes, `x ~ scale * code + offset`, one scale and offset for each group of a grid."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from acclimate.compression.grid import Grid, Piece
from acclimate.compression.packing import chunk_length, pack_nibbles, unpack_nibbles

__all__ = ["TINY", "code_bytes", "code_range", "from_codes", "loud", "to_codes"]

TINY = 2.0**-126
"""Scales below the smallest normal float32 count as zero: their reciprocal would overflow."""

_HALF_LARGEST = 65504.0


def code_range(bits: int) -> tuple[int, int]:
    """Lowest and highest code: `-128, 127` for 8 bits, `-8, 7` for 4."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def code_bytes(count: int, bits: int) -> int:
    """Bytes that hold `count` codes."""
    return count if bits == 8 else -(-count // 2)


def loud(scale: Tensor) -> Tensor:
    """The scale to store: NaN where it is not finite, so that the group decodes to NaN; zero where it is too small."""
    scale = torch.where(scale.isfinite(), scale, torch.nan)
    return torch.where(scale < TINY, 0.0, scale)


def to_codes(
    flat: Tensor,
    grid: Grid,
    scale: Tensor,
    offset: Tensor | None,
    bits: int,
    *,
    even: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """`code = clamp(round((x - offset) / scale))`: int8 `[N]` for 8 bits, uint8 `[ceil(N / 2)]` for 4.

    Without an offset, or with `even`, the lowest code is left out, so that the range is even about zero. With a
    generator, round up with the probability of the fraction, to a resolution of 2^-16. Temporaries: a few chunks.
    """
    device, (low, high) = flat.device, code_range(bits)
    low += even or offset is None
    inverse = torch.where(scale > 0, scale.reciprocal(), 0.0)
    if generator is not None:
        offset = (0.0 if offset is None else offset) - scale * 2.0**-17  # centres the noise below
    room = min(flat.numel(), chunk_length(device))
    work = torch.empty(room, device=device)
    noise = torch.empty(-(-room // 4) if generator is not None else 0, dtype=torch.int64, device=device)
    codes = torch.zeros(code_bytes(flat.numel(), bits), dtype=torch.int8 if bits == 8 else torch.uint8, device=device)
    for piece in grid.pieces(device):
        count = piece.stop - piece.start
        values = _centred(piece, flat, offset, work[:count].view(piece.view))
        values.mul_(piece.groups(inverse))
        if generator is not None:
            drawn = noise.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
            values.add_(drawn.view(piece.view), alpha=2.0**-16)
        _store(codes, piece.start, values.clamp_(low, high).round_().view(-1), bits)
    return codes


def _centred(piece: Piece, flat: Tensor, offset: Tensor | None, out: Tensor) -> Tensor:
    view = piece.of(flat)
    if view.dtype == torch.float32 and offset is not None:
        return torch.sub(view, piece.groups(offset), out=out)
    out.copy_(view)
    return out if offset is None else out.sub_(piece.groups(offset))


def _store(codes: Tensor, start: int, values: Tensor, bits: int) -> None:
    if bits == 8:
        codes[start : start + len(values)].copy_(values)
        return
    odd = start % 2  # a piece that begins within a byte shares it with the piece before
    padded = torch.zeros(odd + len(values), dtype=torch.int8, device=values.device)
    padded[odd:].copy_(values).add_(8)
    packed = pack_nibbles(padded)
    codes[start // 2 : start // 2 + len(packed)].bitwise_or_(packed)


def _load(codes: Tensor, start: int, stop: int, bits: int) -> Tensor:
    if bits == 8:
        return codes[start:stop]
    odd = start % 2
    return unpack_nibbles(codes[start // 2 : -(-stop // 2)], odd + stop - start)[odd:].sub_(8)


def from_codes(
    codes: Tensor, grid: Grid, scale: Tensor, offset: Tensor | None, bits: int, dtype: torch.dtype
) -> Tensor:
    """`x = scale * code + offset`, in float32: `[N]` of `dtype`, held to the range of float16 for that type."""
    device = codes.device
    flat = torch.empty(grid.numel, dtype=dtype, device=device)
    direct = dtype == torch.float32
    work = torch.empty(0 if direct else min(grid.numel, chunk_length(device)), device=device)
    for piece in grid.pieces(device):
        values = piece.of(flat) if direct else work[: piece.stop - piece.start].view(piece.view)
        values.copy_(_load(codes, piece.start, piece.stop, bits).view(piece.view))
        values.mul_(piece.groups(scale))
        if offset is not None:
            values.add_(piece.groups(offset))
        if dtype == torch.float16:
            values.clamp_(-_HALF_LARGEST, _HALF_LARGEST)
        if not direct:
            piece.of(flat).copy_(values)
    return flat
