"""Bandwidth that stays for a while and then jumps."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from acclimate.links.trace import Trace

__all__ = ["Piecewise"]


class Piecewise(Trace):
    """Pieces of constant bandwidth, asked for one by one as time goes on.

    Integrals are sums, and `finish` divides within one piece: exact to rounding. Memory grows by a piece for each one
    that was reached.

    Arguments:
        pieces: (seconds, bit/s), seconds above 0 and bit/s 0 or more. Either endless, with bits passing again and
            again, or with a last piece of infinite seconds and some bandwidth.

    Raises:
        ValueError: on reaching a piece out of range, or the end of the pieces.

    >>> trace = Piecewise([(1.0, 8.0), (math.inf, 2.0)])
    >>> trace.finish(0.5, 6.0)
    2.0
    """

    def __init__(self, pieces: Iterable[tuple[float, float]]) -> None:
        self._pieces: Iterator[tuple[float, float]] = iter(pieces)
        self._edges = [0.0]  # where pieces begin; the last one is where those known so far end
        self._rates: list[float] = []
        self._through = [0.0]  # bits that passed until each edge

    def bandwidth(self, at: float) -> float:
        self.check(at, at)
        self._reach(at)
        return self._rates[bisect_right(self._edges, at) - 1]

    def bits(self, start: float, end: float) -> float:
        self.check(start, end)
        self._reach(end)
        first, last = bisect_right(self._edges, start) - 1, bisect_right(self._edges, end) - 1
        if first == last:
            return self._rates[first] * (end - start)
        between = self._through[last] - self._through[first + 1]
        rest = self._rates[first] * (self._edges[first + 1] - start)
        return rest + between + self._rates[last] * (end - self._edges[last])

    def finish(self, start: float, bits: float) -> float:
        self.check(start, start, bits)
        self._reach(start)
        piece = bisect_right(self._edges, start) - 1
        whole = self._rates[piece] * (self._edges[piece + 1] - start) if self._rates[piece] else 0.0
        if bits <= whole:
            return start + (bits / self._rates[piece] if bits else 0.0)
        wanted = self._through[piece + 1] + (bits - whole)
        while self._through[-1] < wanted:
            self._extend()
        last = bisect_left(self._through, wanted) - 1
        if last <= piece:  # what is left is lost in rounding
            return self._edges[piece + 1]
        return self._edges[last] + (wanted - self._through[last]) / self._rates[last]

    def _reach(self, at: float) -> None:
        while self._edges[-1] <= at:
            self._extend()

    def _extend(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise ValueError(f"The trace ends at {self._edges[-1]} s. Let its last piece last for ever: math.inf.")
        seconds, rate = piece
        if not (seconds > 0 and 0 <= rate < math.inf) or (seconds == math.inf and rate == 0):
            raise ValueError(
                f"The piece at {self._edges[-1]} s has {rate!r} bit/s for {seconds!r} s; expected bandwidth of 0 or "
                "more for a time above 0, and above 0 if it lasts for ever."
            )
        self._edges.append(self._edges[-1] + seconds)
        self._rates.append(rate)
        self._through.append(self._through[-1] + seconds * rate)
