"""Numbers as categories: buckets of about equal numbers of training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acclimate.core.config import whole
from acclimate.fields.recommendation.data.numbers import as_text
from acclimate.fields.recommendation.data.reading import Rows

__all__ = ["Buckets"]


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """The edges between buckets of each numeric field; bucket `b` holds `edges[b - 1] <= v < edges[b]`.

    Arguments:
        edges: for each field, ascending, float64 `[B - 1]`.
    """

    edges: Mapping[str, NDArray[np.float64]]

    @classmethod
    def fit(cls, rows: Rows, fields: Sequence[str], count: int = 20) -> Buckets:
        """Edges at quantiles of these rows, which should be those of training.

        A value that fills more than one bucket's share gets one of its own (most capital gains are 0), and the
        quantiles are those of the others; so there may be a few more buckets than `count`, or fewer where values are
        few.

        Arguments:
            rows: with cells that are numbers or empty.
            fields: the numeric ones.
            count: of buckets, 2 or more.

        Raises:
            ValueError: a field that the rows have not or that is no number, or too few buckets.
        """
        whole(2, count=count)
        return cls({name: _edges(_numbers(rows, name), count) for name in fields})

    def apply(self, rows: Rows) -> Rows:
        """The same rows with the number of the bucket in place of each number; a missing one stays missing."""
        cells = list(rows.cells)
        for name, edges in self.edges.items():
            numbers = _numbers(rows, name)
            cells[rows.fields.index(name)] = as_text(np.searchsorted(edges, numbers, side="right"), np.isnan(numbers))
        return replace(rows, cells=tuple(cells))


def _numbers(rows: Rows, name: str) -> NDArray[np.float64]:
    if name not in rows.fields:
        raise ValueError(f"{rows.path} has no field {name}; expected one of {', '.join(rows.fields)}.")
    cells = rows.cells[rows.fields.index(name)]
    try:
        return np.where(cells == b"", b"nan", cells).astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{rows.path}, column {name}: {error}; expected numbers. Leave the field as it is.") from error


def _edges(numbers: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    values, times = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
    heavy = times * count > times.sum()
    rest = np.repeat(values[~heavy], times[~heavy])
    inner = np.quantile(rest, np.arange(1, count) / count, method="lower") if len(rest) else rest
    alone = values[heavy]
    return np.unique(np.concatenate([inner, alone, np.nextafter(alone, np.inf)]))
