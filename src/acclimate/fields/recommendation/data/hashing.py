"""A stable hash of texts: the same in every process, on every machine and in every version of the library."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.recommendation.data.cells import Cells

__all__ = ["as_words", "stable_hash"]

_STEP, _FIRST, _SECOND = (np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_WORD = 8


def as_words(cells: Cells) -> NDArray[np.uint64]:
    """Texts as big-endian words of eight bytes, zeros at the end: `[N] -> [N, W]`. Words sort as texts do."""
    width = -(-cells.dtype.itemsize // _WORD) * _WORD
    padded = np.ascontiguousarray(cells.astype(f"S{width}", copy=False))
    return padded.view(">u8").reshape(len(cells), width // _WORD).astype(np.uint64)


def stable_hash(cells: Cells) -> NDArray[np.uint64]:
    """64 bits for each text: `[N]`.

    The state starts at 0; for each word `w` of the text, until it ends, it becomes `mix(state ^ w)`, where `mix` is the
    finaliser of splitmix64: `z = x + 0x9E3779B97F4A7C15; z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9; z = (z ^ z >> 27) *
    0x94D049BB133111EB; z ^ z >> 31`, modulo 2^64. Not for secrets: collisions can be made on purpose.

    Source: G. L. Steele et al., Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    words = as_words(cells)
    state = np.zeros(len(cells), dtype=np.uint64)
    for word in words.T:
        state = np.where(word != 0, _mix(state ^ word), state)
    return state


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + _STEP
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
