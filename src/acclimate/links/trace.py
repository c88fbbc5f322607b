"""What a link's bandwidth over time can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Trace"]


class Trace(ABC):
    """Bandwidth as a function of time, in bit/s, from time 0 on. The same arguments give the same trace. [I]

    Not for several threads at once: traces that are drawn grow while they are asked.

    >>> from acclimate.links.traces import step_drop
    >>> trace = step_drop(100.0, at=2.0, share=0.1)
    >>> trace.bandwidth(1.0), trace.bandwidth(2.0), trace.bits(1.0, 3.0), trace.finish(1.0, 110.0)
    (100.0, 10.0, 110.0, 3.0)
    """

    @abstractmethod
    def bandwidth(self, at: float) -> float:
        """Bit/s at a time of 0 or more; right at a change, what it changes to."""

    @abstractmethod
    def bits(self, start: float, end: float) -> float:
        """Bits that pass from `start` to `end`, seconds with `0 <= start <= end`."""

    @abstractmethod
    def finish(self, start: float, bits: float) -> float:
        """When so many bits, 0 or more, are through if sending begins at `start`."""

    def mean(self, start: float, end: float) -> float:
        """Mean bit/s from `start` to `end`, later than `start`."""
        if not end > start:
            raise ValueError(f"found a span from {start!r} to {end!r} s, expected an end after the start.")
        return self.bits(start, end) / (end - start)

    @staticmethod
    def check(start: float, end: float, bits: float = 0.0) -> None:
        """ValueError unless `0 <= start <= end` and `0 <= bits`, all finite."""
        if not 0 <= start <= end < float("inf"):
            raise ValueError(f"found times {start!r} and {end!r} s, expected finite ones of 0 or more, in order.")
        if not 0 <= bits < float("inf"):
            raise ValueError(f"bits must be a finite number of 0 or more, found {bits!r}.")
