"""The recent past of one stream, as numbers for plots."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

import numpy as np

__all__ = ["COLUMNS", "History"]

COLUMNS = ("time", "version", "entropy", "distance", "concentration", "flip_rate", "drift", "loss", "updated", "held")
"""`time` in seconds since 1970, `updated` 1 or 0, `held` the share of rows that the source has answered.

A point without `updated` is a version that a control verb has published.
"""

_FIRST = 8


class History:
    """The last points, at most `length` of them; what a point does not say is NaN. Memory grows with use."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._rows = np.full((min(_FIRST, length), len(COLUMNS)), np.nan)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, point: Mapping[str, float]) -> None:
        """Append a point; names that no column has are left out."""
        with self._lock:
            if self._count == len(self._rows) < self._length:
                more = min(self._length, 2 * self._count) - self._count
                self._rows = np.concatenate([self._rows, np.full((more, len(COLUMNS)), np.nan)])
            self._rows[self._count % len(self._rows)] = [point.get(name, math.nan) for name in COLUMNS]
            self._count += 1

    def points(self) -> list[dict[str, float | None]]:
        """All points, oldest first, as JSON values: None for what is unknown or not finite."""
        with self._lock:
            full = self._count >= len(self._rows)
            rows = np.roll(self._rows, -(self._count % len(self._rows)), axis=0) if full else self._rows[: self._count]
            rows = rows.copy()
        return [
            {name: value if math.isfinite(value) else None for name, value in zip(COLUMNS, row, strict=True)}
            for row in rows.tolist()
        ]
