"""Orders in which labels come together: sorted, and drawn from a Dirichlet distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["correlated_order", "sorted_order"]

_TRIES = 20

Ints = NDArray[np.int64]


def sorted_order(labels: Ints) -> Ints:
    """All images of the first class, then all of the next: positions `[n]`."""
    return np.argsort(labels, kind="stable").astype(np.int64)


def correlated_order(labels: Ints, concentration: float, random: np.random.Generator) -> Ints:
    """An order in which neighbours share labels, as int64 positions `[n]`.

    For `K` classes the images are dealt to `K` chunks. Each class draws its shares `p ~ Dir(delta 1_K)`; shares of
    chunks that hold `n / K` images already become zero, the rest are scaled to sum to one, and the class is cut by the
    cumulative `p`. The chunks come one after the other, the classes inside a chunk in random order. All is drawn again,
    at most 20 times, until no chunk is empty. A small `delta` gives chunks of few classes, a large one an even mixture.

    Source: the protocol of NOTE (Gong et al., NeurIPS 2022), as FIND's authors draw it. That the classes of a chunk
    stay together, and the bound on redraws, are ours.
    """
    if not len(labels):
        return np.zeros(0, dtype=np.int64)
    classes = np.unique(labels)
    count = len(classes)
    owner = np.zeros(len(labels), dtype=np.int64)
    for _ in range(_TRIES):
        held = np.zeros(count, dtype=np.int64)
        for label in classes:
            rows = random.permutation(np.flatnonzero(labels == label))
            sizes = _dealt(random.dirichlet(np.full(count, concentration)), len(rows), held < len(labels) / count)
            owner[rows] = np.repeat(np.arange(count), sizes)
            held += sizes
        if held.min() > 0:
            break
    place = random.random((count, int(classes[-1]) + 1))
    return np.lexsort((random.random(len(labels)), place[owner, labels], owner)).astype(np.int64)


def _dealt(shares: NDArray[np.float64], total: int, room: NDArray[np.bool_]) -> Ints:
    """How many of `total` go to each chunk. Where no share is left, the chunks with room get the same."""
    shares = np.where(room, np.nan_to_num(shares), 0.0)
    if shares.sum() <= 0:
        shares = room.astype(np.float64)
    cuts = np.rint(np.cumsum(shares) / shares.sum() * total).astype(np.int64)
    return np.diff(cuts, prepend=0)
