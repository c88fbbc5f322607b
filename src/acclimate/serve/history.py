"""The recent past of one stream, as numbers for plots."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

import numpy as np

__all__ = ["COLUMNS", "History"]

COLUMNS = ("time", "version", "entropy", "distance", "loss", "updated", "held")
"""What every point has: `time` in seconds since 1970, `updated` 1 or 0, `held` the share of rows that the source has
answered. A point without `updated` is a version that a control verb has published. Further columns come with what
methods and guards tell of their steps."""

_FIRST = 8
_MOST = 32


class History:
    """The last points, at most `length` of them and of 32 columns; what a point does not say is NaN.

    Memory grows with use: 8 bytes a number.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._names = list(COLUMNS)
        self._rows = np.full((min(_FIRST, length), len(COLUMNS)), np.nan)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, point: Mapping[str, float]) -> None:
        """Append a point. Names beyond the bound are left out."""
        with self._lock:
            self._names += [name for name in point if name not in self._names][: _MOST - len(self._names)]
            more = len(self._names) - self._rows.shape[1]
            taller = min(self._length, 2 * self._count) - self._count if self._count == len(self._rows) else 0
            if more or taller > 0:
                self._rows = np.pad(self._rows, ((0, max(0, taller)), (0, more)), constant_values=np.nan)
            self._rows[self._count % len(self._rows)] = [point.get(name, math.nan) for name in self._names]
            self._count += 1

    def points(self) -> list[dict[str, float | None]]:
        """All points, oldest first, as JSON values: None for what is unknown or not finite."""
        with self._lock:
            full = self._count >= len(self._rows)
            rows = np.roll(self._rows, -(self._count % len(self._rows)), axis=0) if full else self._rows[: self._count]
            names, values = list(self._names), rows.tolist()
        return [
            {name: value if math.isfinite(value) else None for name, value in zip(names, row, strict=True)}
            for row in values
        ]
