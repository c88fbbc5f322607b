"""One and two bits per entry in bytes, and back through a table."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["larger", "look_up", "not_negative", "pack_pairs"]

_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_UNSIGNED = {2: np.uint16, 4: np.uint32, 8: np.uint64}

_GATHER = 1 << 24 | 1 << 18 | 1 << 12 | 1 << 6
"""Multiplied with four bytes of 0 to 3, the top byte of the product has them in its bits 0, 2, 4 and 6 and up."""


def not_negative(values: Tensor) -> Tensor:
    """`x >= 0` of a contiguous tensor, bool of the same shape; anything for NaN."""
    if values.device.type != "cpu":
        return values >= 0
    width = values.dtype.itemsize
    words = values.view(_WORDS[width]).numpy().view(_UNSIGNED[width])
    return torch.from_numpy(words <= _UNSIGNED[width](1 << (8 * width - 1)))  # -0 is the sign bit alone


def larger(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`|x_ij| > r_i c_j` in float32, bool `[R, C]`, for scales `[R, 1]` and `[1, C]`; anything for NaN."""
    if values.device.type != "cpu":
        return values.float().abs_() > rows * columns
    with np.errstate(invalid="ignore", over="ignore"):  # in numpy: torch would wake its threads for each chunk
        return torch.from_numpy(np.abs(values.float().numpy()) > rows.numpy() * columns.numpy())


def pack_pairs(low: Tensor, high: Tensor) -> Tensor:
    """Four codes `low + 2 high` a byte, the first in the lowest bits: bool `[4 B], [4 B] -> uint8 [B]`, contiguous."""
    if low.device.type != "cpu":
        codes = low.view(torch.uint8) + 2 * high.view(torch.uint8)
        return (codes.view(torch.int32) * _GATHER).bitwise_right_shift_(24).bitwise_and_(255).to(torch.uint8)
    first, second = low.numpy().view(np.uint8), high.numpy().view(np.uint8)
    words = (second + second + first).view(np.uint32) * np.uint32(_GATHER)
    words >>= np.uint32(24)
    return torch.from_numpy(words.astype(np.uint8))


def look_up(table: Tensor, codes: Tensor, out: Tensor) -> None:
    """The entries of each byte side by side: table `[256, E]`, codes `uint8 [R, B]`, contiguous out `[R, B E]`."""
    entries = out.view(-1, table.shape[1])
    if out.device.type == "cpu":  # several times faster than index_select
        np.take(table.numpy(), codes.reshape(-1).numpy(), axis=0, out=entries.numpy(), mode="clip")
    else:
        torch.index_select(table, 0, codes.reshape(-1).int(), out=entries)
