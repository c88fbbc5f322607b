"""Bits and nibbles in bytes, chunk by chunk, the same on every device."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["bit_bytes", "chunk_length", "chunks", "exceeding", "lookup_bits", "pack_bits", "pack_nibbles", "place"]
__all__ += ["positions", "unpack_bits", "unpack_nibbles"]

_GATHER = 0x0102040810204080
"""Multiplied with eight bytes of 0 or 1, the top byte of the product is their bits."""


def chunk_length(device: torch.device) -> int:
    """Elements worked on at a time: what stays in a processor's cache, or fills an accelerator."""
    return 1 << 18 if device.type == "cpu" else 1 << 24


def chunks(length: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """`(start, stop)` over `length` elements; every start is a multiple of 65,536."""
    step = chunk_length(device)
    for start in range(0, length, step):
        yield start, min(start + step, length)


def bit_bytes(count: int) -> int:
    """Bytes that hold `count` bits."""
    return -(-count // 8)


def pack_bits(flags: Tensor) -> Tensor:
    """Eight flags a byte, the first in the lowest bit: bool `[N] -> uint8 [ceil(N / 8)]`; the rest is zero.

    Temporaries on accelerators: N / 4 bytes, so callers go by chunks.
    """
    if flags.device.type == "cpu":
        return torch.from_numpy(np.packbits(flags.numpy(), bitorder="little"))
    count = flags.numel()
    whole = count // 8
    packed = torch.empty(bit_bytes(count), dtype=torch.uint8, device=flags.device)
    if sys.byteorder != "little" or flags.storage_offset() % 8:
        flags = flags.clone()
    words = flags[: whole * 8].view(torch.int64)
    if sys.byteorder != "little":
        words = flags[: whole * 8].view(-1, 8).flip(1).contiguous().view(-1).view(torch.int64)
    packed[:whole].copy_((words * _GATHER).bitwise_right_shift_(56).bitwise_and_(255))
    if count > whole * 8:
        rest = flags[whole * 8 :]
        packed[whole] = (rest.to(torch.int64) << torch.arange(len(rest), device=flags.device)).sum()
    return packed


def lookup_bits(packed: Tensor, out: Tensor, set_to: Tensor | float, clear_to: Tensor | float) -> None:
    """Write one of two values for each bit into `out [N]`, where `packed` holds at least N bits."""
    if out.device.type == "cpu" and (set_to, clear_to) == (1, 0):
        out.copy_(unpack_bits(packed, out.numel()))
        return
    table = _table(out, set_to, clear_to)
    count = out.numel()
    whole = count // 8
    torch.index_select(table, 0, packed[:whole].int(), out=out[: whole * 8].view(-1, 8))
    if count > whole * 8:
        out[whole * 8 :] = table.index_select(0, packed[whole : whole + 1].int())[0, : count - whole * 8]


def _table(like: Tensor, set_to: Tensor | float, clear_to: Tensor | float) -> Tensor:
    """The eight values of each byte: `[256, 8]`."""
    bits = torch.arange(256, device=like.device)[:, None] >> torch.arange(8, device=like.device) & 1
    values = [torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (set_to, clear_to)]
    return torch.where(bits.bool(), *values)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """The first `count` flags of packed bits: `uint8 [...] -> bool [count]`."""
    if packed.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed.numpy(), count=count, bitorder="little")).view(torch.bool)
    flags = torch.empty(bit_bytes(count) * 8, dtype=torch.bool, device=packed.device)
    words = _table(flags, True, False).view(torch.int64)[:, 0]  # eight flags are one word
    torch.index_select(words, 0, packed[: bit_bytes(count)].int(), out=flags.view(torch.int64))
    return flags[:count]


def pack_nibbles(codes: Tensor) -> Tensor:
    """Two codes of 0 to 15 a byte, the first in the low half: int8 `[N] -> uint8 [ceil(N / 2)]`."""
    if codes.numel() % 2:
        codes = torch.cat((codes, codes.new_zeros(1)))
    elif codes.storage_offset() % 2:
        codes = codes.clone()
    pairs = codes.view(torch.int16)
    return (pairs >> 4).bitwise_or_(pairs).bitwise_and_(255).to(torch.uint8)


def unpack_nibbles(packed: Tensor, count: int) -> Tensor:
    """The first `count` codes of packed nibbles: `uint8 [...] -> int8 [count]`."""
    pairs = packed.to(torch.int16)
    return (pairs << 4).bitwise_or_(pairs).bitwise_and_(0x0F0F).view(torch.int8)[:count]


def positions(flags: Tensor) -> Tensor:
    """Where flags are set, in order: bool `[N] -> int64 [K]`. A host read on accelerators."""
    if flags.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.nonzero()[:, 0]


def exceeding(magnitudes: Tensor, limit: Tensor) -> Tensor:
    """Whether each is above the limit, or NaN: `[N] -> bool [N]`."""
    if magnitudes.device.type == "cpu" and magnitudes.dtype.itemsize > 2:
        with np.errstate(invalid="ignore"):
            below = np.less_equal(magnitudes.numpy(), limit.numpy())
        return torch.from_numpy(np.logical_not(below, out=below))
    return (magnitudes <= limit).logical_not_()


_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def place(out: Tensor, where: Tensor, values: Tensor) -> None:
    """`out[where] = values` for distinct places and values of the same type: `[N], [K], [K]`."""
    if out.device.type == "cpu":
        word = _WORDS[out.dtype.itemsize]
        out.view(word).numpy()[where.numpy()] = values.view(word).numpy()
    else:
        out.index_copy_(0, where, values)
