"""From bits on the wire to entries kept, and back."""

from __future__ import annotations

__all__ = ["FLOAT_BITS", "contraction", "wire_ratio"]

FLOAT_BITS = 32
"""Bits per entry of the dense gradient, which ratios are counted against."""


def contraction(ratio: float, bits_per_entry: float = 64, value_bits: int = 32) -> float:
    """The share k / d of entries that a wire ratio pays for: `delta_k = 32 delta / beta`. [D]

    From `value_bits / 32` on, all values go without indices within the same bits, so all are kept. This is where the
    bits of a dense message fit into the ratio; a sparse one of that many bits would keep fewer.

    Arguments:
        ratio: delta in (0, 1].
        bits_per_entry: beta, a kept entry's value and index: 64 for float32 and int32.
        value_bits: of a value alone: 32, or 16 for half precision.

    >>> contraction(0.1), contraction(1.0), contraction(0.5, bits_per_entry=48, value_bits=16)
    (0.05, 1.0, 1.0)
    """
    return 1.0 if ratio * FLOAT_BITS >= value_bits else min(1.0, ratio * FLOAT_BITS / bits_per_entry)


def wire_ratio(kept: float, bits_per_entry: float = 64, value_bits: int = 32) -> float:
    """The wire ratio that keeps a share k / d of entries, at most that of a dense message. [D]

    >>> wire_ratio(0.1), wire_ratio(0.99)
    (0.2, 1.0)
    """
    return min(value_bits, kept * bits_per_entry) / FLOAT_BITS
