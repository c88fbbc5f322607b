"""Which classes are joined: the similar ones, and of those the pairs that others are similar to as well."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_degree", "by_level", "shared"]

Similarity = NDArray[np.float32] | NDArray[np.float64]
Joined = NDArray[np.bool_]


def by_degree(similarity: Similarity, degree: float, among: Joined | None = None) -> Joined:
    """Join the most similar pairs, as many as give nodes this many neighbours in the mean.

    Of N nodes those are `m = round(degree N / 2)` pairs, `degree` cut at N - 1: all above the (m + 1)-th largest
    similarity, so pairs that are level with it are left out. Nodes not `among` `[N]` are joined to none, and N counts
    the others.

    >>> by_degree(np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]]), 1).tolist()
    [[False, True, False], [True, False, True], [False, True, False]]
    """
    places = np.arange(len(similarity)) if among is None else np.flatnonzero(among)
    count = len(places)
    joined = np.zeros(similarity.shape, dtype=np.bool_)
    if count < 2:
        return joined
    own = similarity if among is None else similarity[np.ix_(places, places)]
    rows, columns = np.triu_indices(count, 1)
    values = own[rows, columns]
    wanted = round(min(degree, count - 1) * count / 2)
    chosen = np.ones(len(values), dtype=np.bool_)
    if wanted < len(values):
        chosen = values > np.partition(values, len(values) - wanted - 1)[len(values) - wanted - 1]
    rows, columns = places[rows[chosen]], places[columns[chosen]]
    joined[rows, columns] = joined[columns, rows] = True
    return joined


def by_level(similarity: Similarity, level: float, among: Joined | None = None) -> Joined:
    """Join all pairs more similar than `level`."""
    joined = similarity > level
    np.fill_diagonal(joined, False)
    return joined if among is None else joined & among & among[:, None]


def shared(neighbours: list[int], least: int) -> list[int]:
    """Keep the edges whose ends have `least` common neighbours; rows of bits in and out. 0 keeps all.

    >>> shared([0b0110, 0b0101, 0b1011, 0b0100], 1)
    [6, 5, 3, 0]
    """
    if least < 1:
        return list(neighbours)
    kept = [0] * len(neighbours)
    for node, row in enumerate(neighbours):
        later = row >> (node + 1) << (node + 1)
        while later:
            low = later & -later
            other = low.bit_length() - 1
            if (row & neighbours[other]).bit_count() >= least:
                kept[node] |= low
                kept[other] |= 1 << node
            later ^= low
    return kept
