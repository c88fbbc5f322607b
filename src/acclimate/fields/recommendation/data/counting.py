"""How often each value of a column comes, counted block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.recommendation.data.cells import Cells
from acclimate.fields.recommendation.data.hashing import as_words

__all__ = ["ValueCounts"]


class ValueCounts:
    """Counts of values, in memory that grows with distinct values alone.

    New counts wait until they are as many as those before and are merged then, so each takes part in few merges.

    >>> counts = ValueCounts()
    >>> counts.add(np.array([b"b", b"a", b"b"]))
    >>> [each.tolist() for each in counts.total()]
    [[b'a', b'b'], [1, 2]]
    """

    def __init__(self) -> None:
        self._merged = (np.empty(0, "S8"), np.empty(0, np.int64))
        self._waiting: list[tuple[Cells, NDArray[np.int64]]] = []

    def add(self, cells: Cells) -> None:
        """Count these cells, too: `[N]`."""
        self._waiting.append(_added(cells, np.ones(len(cells), dtype=np.int64)))
        if sum(len(values) for values, _ in self._waiting) > len(self._merged[0]):
            self._merge()

    def total(self) -> tuple[Cells, NDArray[np.int64]]:
        """Distinct values in ascending order of their bytes, and how often each was seen: `[V]` both."""
        self._merge()
        return self._merged

    def _merge(self) -> None:
        parts = [self._merged, *self._waiting]
        self._merged = _added(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
        self._waiting = []


def _added(values: Cells, counts: NDArray[np.int64]) -> tuple[Cells, NDArray[np.int64]]:
    """Distinct values, sorted, with the sum of their counts."""
    words = as_words(values)
    keys = words[:, 0] if words.shape[1] == 1 else values  # numbers sort much faster than texts
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(ordered)), bool), ordered[1:] != ordered[:-1]]))
    if not len(starts):
        return values, counts
    return values[order[starts]], np.add.reduceat(counts[order], starts)
