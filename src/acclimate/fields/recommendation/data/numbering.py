"""How the values of one field become numbers: by a list of values that were seen, or by a hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from acclimate.core.config import whole
from acclimate.fields.recommendation.data.cells import Cells
from acclimate.fields.recommendation.data.hashing import stable_hash

__all__ = ["Hashed", "Listed", "Numbering", "numbering_from"]


class Numbering(Protocol):
    """What a field's numbering can do; the last of its `size` numbers is that of values out of the vocabulary."""

    @property
    def size(self) -> int:
        """How many numbers there are."""
        ...

    def numbers(self, cells: Cells) -> NDArray[np.int64]:
        """The number of each cell, `0..size - 1`: `[N]`."""
        ...

    def config(self) -> dict[str, Any]:
        """The numbering as JSON values."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """Values that were seen often enough, numbered in descending order of their counts; equal ones by their bytes.

    A missing value is the empty text and counts as any other. All that is not listed has the last number.

    Arguments:
        values: all different, in the order of their numbers, `[V]`.
        counts: how often each was seen, int64 `[V]`.
        threshold: how often a value had to be seen, 1 or more.
        distinct: how many different values were seen, the rare ones among them.
    """

    values: Cells
    counts: NDArray[np.int64]
    threshold: int
    distinct: int
    _keys: NDArray[np.uint64] = field(init=False, repr=False)
    _order: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        keys = stable_hash(self.values)
        order = np.argsort(keys)
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_keys", keys[order])

    @classmethod
    def of(cls, values: Cells, counts: NDArray[np.int64], threshold: int) -> Listed:
        """The values with at least `threshold` counts, of distinct ones in ascending order."""
        kept, distinct = counts >= threshold, len(values)
        values, counts = values[kept], counts[kept]
        order = np.argsort(-counts, kind="stable")
        return cls(values[order], counts[order], threshold, distinct)

    @property
    def size(self) -> int:
        """Values, and one number for all others."""
        return len(self.values) + 1

    def numbers(self, cells: Cells) -> NDArray[np.int64]:
        """The number of each cell: `[N]`."""
        if not len(self.values):
            return np.zeros(len(cells), dtype=np.int64)
        place = np.minimum(np.searchsorted(self._keys, stable_hash(cells)), len(self._keys) - 1)
        number = self._order[place]
        return np.where(self.values[number] == cells, number, len(self.values))

    def config(self) -> dict[str, Any]:
        """Values as texts, counts, threshold and the number of distinct values."""
        texts = [value.decode(errors="surrogateescape") for value in self.values.tolist()]
        numbers = {"threshold": self.threshold, "distinct": self.distinct}
        return {**numbers, "values": texts, "counts": self.counts.tolist()}


@dataclass(frozen=True, slots=True)
class Hashed:
    """`stable_hash` modulo a number of buckets: nothing to fit, nothing to keep, and values that share a bucket.

    The number after the buckets is reserved as in every field, but no value has it.

    Arguments:
        buckets: 1 or more.
    """

    buckets: int

    def __post_init__(self) -> None:
        whole(1, buckets=self.buckets)

    @property
    def size(self) -> int:
        """Buckets, and the reserved number."""
        return self.buckets + 1

    def numbers(self, cells: Cells) -> NDArray[np.int64]:
        """The bucket of each cell: `[N]`."""
        return (stable_hash(cells) % np.uint64(self.buckets)).astype(np.int64)

    def config(self) -> dict[str, Any]:
        """The number of buckets."""
        return {"buckets": self.buckets}


def numbering_from(config: Mapping[str, Any]) -> Numbering:
    """What `config` returned, as an object again; KeyError, TypeError or ValueError where it is something else."""
    if "buckets" in config:
        return Hashed(config["buckets"])
    values = [text.encode(errors="surrogateescape") for text in config["values"]]
    counts = np.array(config["counts"], dtype=np.int64)
    if len(values) != len(counts) or len(set(values)) != len(values):
        raise ValueError(f"{len(set(values))} distinct of {len(values)} values, and {len(counts)} counts")
    cells = np.array(values, dtype=bytes) if values else np.empty(0, "S8")
    return Listed(cells, counts, config["threshold"], config["distinct"])
