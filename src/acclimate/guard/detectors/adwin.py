"""ADWIN: a window as long as its values agree, kept as an exponential histogram."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from acclimate.core.config import below, positive, whole
from acclimate.guard.detectors.detector import Detector, checked, detectors

__all__ = ["Adwin"]

_WIDTH, _SUM, _SPREAD, _SEEN, _FOUND = range(5)
_HEADER = 5
_ROWS = 60


@detectors.register("adwin")
@dataclass(frozen=True, kw_only=True)
class Adwin(Detector):
    """A change of the mean between an older and a newer part of the window, which then loses its oldest values.

    For each way to cut the window of `W` values with variance `v` into parts of `n_0` and `n_1` values, the means
    differ too much if `|m_0 - m_1| > sqrt(2 v L / m) + 2 L / (3 m)`, where `L = log(2 log(W) / delta)` and
    `1 / m = 1 / (n_0 - n + 1) + 1 / (n_1 - n + 1)` with `n = min_window_length`. Buckets of 1, 2, 4, ... values, at
    most `max_buckets` of a kind, hold the window; cuts lie between them. Source: Bifet and Gavalda, SIAM Data Mining
    2007 (ADWIN2).

    Arguments: `delta` in (0, 1), confidence of one cut; `clock` >= 1, values between checks; `max_buckets` >= 2;
    `min_window_length` >= 1 of either part; `grace_period` >= 0, values before a first check; `restart`: the value
    after a change begins an empty window, as in river, where the paper keeps the newer part. The other defaults are
    those of river. Cost: O(1) a value and O(log W) a cut, 6 kB. Fails to see a change of the variance alone, or one
    that is undone within a clock; `delta` is per cut and check, so false alarms add up on a stream without end.

    >>> detector = Adwin()
    >>> state = detector.initial()
    >>> [t for t in range(400) if detector.update(state, float(t >= 200))]
    [223, 255, 287]
    >>> 200 <= detector.width(state) < 220, detector.estimate(state) > 0.9
    (True, True)
    """

    delta: float = 0.002
    clock: int = 32
    max_buckets: int = 5
    min_window_length: int = 5
    grace_period: int = 10
    restart: bool = False

    def __post_init__(self) -> None:
        positive(delta=self.delta)
        below(1, delta=self.delta)
        whole(1, clock=self.clock, min_window_length=self.min_window_length)
        whole(2, max_buckets=self.max_buckets)
        whole(0, grace_period=self.grace_period)

    @property
    def size(self) -> int:
        return _HEADER + _ROWS * self._stride

    def width(self, state: Tensor) -> int:
        """How many of the last values the window holds."""
        return int(checked(state, self.size)[_WIDTH])

    def estimate(self, state: Tensor) -> float:
        """The mean of the values in the window; 0 before the first."""
        width, total = checked(state, self.size)[: _SUM + 1].tolist()
        return total / max(width, 1.0)

    @property
    def _stride(self) -> int:
        """Numbers of a row: how many buckets it has, then sum and spread of each, oldest first."""
        return 1 + 2 * (self.max_buckets + 1)

    def _take(self, numbers: memoryview[float], value: float) -> bool:
        if self.restart and numbers[_FOUND]:
            for place in range(self.size):
                numbers[place] = 0.0
        before = numbers[_WIDTH]
        if before:
            numbers[_SPREAD] += _between(before, numbers[_SUM], 1.0, value)
        numbers[_WIDTH] = before + 1
        numbers[_SUM] += value
        numbers[_SEEN] += 1
        self._append(numbers, 0, value, 0.0)
        found = False
        if numbers[_SEEN] % self.clock == 0 and numbers[_WIDTH] > self.grace_period:
            while self._differs(numbers):
                found = True
                self._forget_oldest(numbers)
        numbers[_FOUND] = float(found)
        return found

    def _append(self, numbers: memoryview[float], row: int, total: float, spread: float) -> None:
        """One more bucket in a row; one too many makes the two oldest one of the next row."""
        start = _HEADER + row * self._stride
        count = int(numbers[start])
        place = start + 1 + 2 * count
        numbers[place], numbers[place + 1] = total, spread
        numbers[start] = count + 1
        if count < self.max_buckets:
            return
        first, first_spread, second, second_spread = numbers[start + 1 : start + 5]
        items = float(2**row)
        self._drop(numbers, start, 2)
        spread = first_spread + second_spread + _between(items, first, items, second)
        self._append(numbers, row + 1, first + second, spread)

    def _drop(self, numbers: memoryview[float], start: int, buckets: int) -> None:
        left = int(numbers[start]) - buckets
        for place in range(start + 1, start + 1 + 2 * left):
            numbers[place] = numbers[place + 2 * buckets]
        for place in range(start + 1 + 2 * left, start + 1 + 2 * (left + buckets)):
            numbers[place] = 0.0
        numbers[start] = left

    def _oldest_row(self, numbers: memoryview[float]) -> int:
        """The last row that has a bucket; every row before it has one too, or had."""
        row = int(numbers[_WIDTH]).bit_length() - 1
        while row and not numbers[_HEADER + row * self._stride]:
            row -= 1
        return row

    def _buckets(self, numbers: memoryview[float]) -> Iterator[tuple[int, float]]:
        """Values and sum of each bucket, from the oldest."""
        for row in range(self._oldest_row(numbers), -1, -1):
            start = _HEADER + row * self._stride
            for bucket in range(int(numbers[start])):
                yield 2**row, numbers[start + 1 + 2 * bucket]

    def _differs(self, numbers: memoryview[float]) -> bool:
        width, total, spread = numbers[_WIDTH], numbers[_SUM], numbers[_SPREAD]
        shortest = self.min_window_length
        if width < 2 * shortest:
            return False
        scale = math.log(2 * math.log(width) / self.delta)
        variance = max(spread, 0.0) / width
        older, older_sum = 0, 0.0
        for items, bucket_sum in self._buckets(numbers):
            older, older_sum = older + items, older_sum + bucket_sum
            newer = width - older
            if newer < shortest:
                return False
            if older < shortest:
                continue
            inverse = 1 / (older - shortest + 1) + 1 / (newer - shortest + 1)
            bound = math.sqrt(2 * variance * scale * inverse) + 2 / 3 * scale * inverse
            if abs(older_sum / older - (total - older_sum) / newer) > bound:
                return True
        return False

    def _forget_oldest(self, numbers: memoryview[float]) -> None:
        row = self._oldest_row(numbers)
        start = _HEADER + row * self._stride
        items, total, spread = float(2**row), numbers[start + 1], numbers[start + 2]
        numbers[_WIDTH] -= items
        numbers[_SUM] -= total
        numbers[_SPREAD] -= spread + _between(items, total, numbers[_WIDTH], numbers[_SUM])
        self._drop(numbers, start, 1)


def _between(items: float, total: float, others: float, others_total: float) -> float:
    """What joining two groups adds to the sums of squared deviations of each: `n m (a - b)^2 / (n + m)`."""
    gap = total / items - others_total / others
    return items * others * gap * gap / (items + others)
