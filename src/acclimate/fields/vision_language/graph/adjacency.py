"""Which classes are joined: the similar ones, and of those the pairs that others are similar to as well."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_degree", "by_level", "shared"]

Similarity = NDArray[np.float32] | NDArray[np.float64]
Joined = NDArray[np.bool_]

_SET_BITS = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def by_degree(similarity: Similarity, degree: float, among: Joined | None = None) -> Joined:
    """Join the most similar pairs, as many as give nodes this many neighbours in the mean.

    Of N nodes those are `m = round(degree N / 2)` pairs, `degree` cut at N - 1: all above the (m + 1)-th largest
    similarity, so pairs that are level with it are left out. Nodes not `among` `[N]` are joined to none, and N counts
    the others. Of a pair the similarity below the diagonal counts.

    >>> by_degree(np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]]), 1).tolist()
    [[False, True, False], [True, False, True], [False, True, False]]
    """
    count = len(similarity) if among is None else int(among.sum())
    pairs = _pairs(len(similarity), among)
    wanted = round(min(degree, max(0, count - 1)) * count / 2)
    if wanted < count * (count - 1) // 2:
        values = np.where(pairs, similarity, -np.inf)
        place = values.size - wanted - 1
        pairs = values > np.partition(values, place, axis=None)[place]
    return pairs | pairs.T


def by_level(similarity: Similarity, level: float, among: Joined | None = None) -> Joined:
    """Join all pairs more similar than `level`; of a pair the similarity below the diagonal counts."""
    joined = _pairs(len(similarity), among) & (similarity > level)
    return joined | joined.T


def _pairs(count: int, among: Joined | None) -> Joined:
    """Places `[N, N]` below the diagonal, one for each pair of nodes that are among these."""
    below = np.tri(count, k=-1, dtype=np.bool_)
    return below if among is None else below & among & among[:, None]


def shared(joined: Joined, least: int) -> Joined:
    """Keep the edges whose ends have `least` common neighbours. 0 keeps all.

    >>> triangle_with_tail = np.array([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0]], dtype=bool)
    >>> shared(triangle_with_tail, 1).astype(int).tolist()
    [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    """
    if least < 1:
        return joined
    rows, columns = np.divmod(np.flatnonzero(joined), max(1, len(joined)))
    packed = np.packbits(joined, axis=1)
    kept = _SET_BITS[packed[rows] & packed[columns]].sum(1) >= least
    found = np.zeros_like(joined)
    found[rows[kept], columns[kept]] = True
    return found
