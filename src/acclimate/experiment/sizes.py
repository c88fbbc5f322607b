"""Bytes for people."""

from __future__ import annotations

__all__ = ["readable_bytes"]


def readable_bytes(count: float | None) -> str:
    """Three digits and a decimal unit; a dash for None.

    >>> readable_bytes(2_153_000), readable_bytes(16_650), readable_bytes(None)
    ('2.15 MB', '16.6 kB', '-')
    """
    if count is None:
        return "-"
    return f"{count / 1e6:.3g} MB" if count >= 999_500 else f"{count / 1e3:.3g} kB"
