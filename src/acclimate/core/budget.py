"""Limits that a user sets, and sizes as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Budget", "parse_size"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)


def parse_size(size: str | int) -> int:
    """Bytes from a number of them, or from words such as "64 MB" (10^6) or "64 MiB" (2^20).

    ValueError for what is no size above 0.

    >>> parse_size("1.5 kB"), parse_size("2 MiB"), parse_size(800)
    (1500, 2097152, 800)
    """
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if found:
        number = float(found[1]) * _UNITS[(found[2] or "").lower()]
    else:
        number = size if isinstance(size, int) and not isinstance(size, bool) else 0
    if number < 1:
        raise ValueError(f'found {size!r} for a size, expected bytes as a whole number or words such as "64 MB".')
    return int(number)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an adaptation may take beyond the model itself.

    Argument: `memory`, a size such as "64 MB" or a number of bytes: declared state, the copy for rollback, and what
    autograd holds at the peak of a step, together. ValueError for what is no size.

    >>> Budget(memory="64 MB").bytes
    64000000
    """

    memory: str | int

    def __post_init__(self) -> None:
        parse_size(self.memory)

    @property
    def bytes(self) -> int:
        return parse_size(self.memory)
