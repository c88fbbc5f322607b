"""A sum over the bytes of a packet that tells damage, the same on every device and without waiting for one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["FIELD", "weighed"]

FIELD = slice(12, 16)
"""Where the sum stands in a packet: in a word of its own, that counts as zero."""

_PLACE = FIELD.start // 4


def weighed(packet: Tensor) -> Tensor:
    """`sum_i (2 i + 1) w_i mod 2^32` over the words w of a packet but the one that holds it, little endian `uint8 [4]`.

    Words have 4 bytes, little endian, the last filled up with zeros. Weights are odd, so a change of one word always
    shows, and they grow, so that words which change places show.

    Arguments: `packet`, uint8 `[n]`, 16 or more; the sum stays on its device.

    >>> packet = torch.arange(20, dtype=torch.uint8)
    >>> int.from_bytes(bytes(weighed(packet).tolist()), "little") == (
    ...     0x03020100 + 3 * 0x07060504 + 5 * 0x0B0A0908 + 9 * 0x13121110
    ... ) % 2**32
    True
    """
    return _by_numpy(packet) if packet.device.type == "cpu" else _by_torch(packet)


def _by_torch(packet: Tensor) -> Tensor:
    words = torch.nn.functional.pad(packet, (0, -len(packet) % 4)).view(torch.int32).long()
    words[_PLACE] = 0
    total = (words * torch.arange(1, 2 * len(words), 2, device=packet.device)).sum()  # wraps: 2^32 divides 2^64
    return total.view(1).view(torch.uint8)[:4]


def _by_numpy(packet: Tensor) -> Tensor:
    raw = packet.contiguous().numpy()
    if len(raw) % 4:
        raw = np.pad(raw, (0, -len(raw) % 4))
    words = raw.view("<u4")
    weights = np.arange(1, 2 * len(words), 2, dtype=np.uint32)
    before, after = slice(_PLACE), slice(_PLACE + 1, None)
    total = int(np.dot(words[before], weights[before])) + int(np.dot(words[after], weights[after]))
    return torch.from_numpy(np.array([total % (1 << 32)], "<u4").view(np.uint8))
