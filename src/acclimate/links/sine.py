"""Bandwidth that rises and falls smoothly."""

from __future__ import annotations

import math

from acclimate.core.config import between, positive
from acclimate.links.trace import Trace

__all__ = ["Sine"]


class Sine(Trace):
    """`a(t) = m (1 + A sin(2 pi t / p + phase))`.

    Integrals are in closed form; `finish` solves for time by safeguarded Newton steps, to within 1e-12 of the period.

    Arguments:
        mean: m, bit/s, above 0.
        amplitude: A, relative to the mean, in [0, 1).
        period: p, seconds, above 0.
        phase: radians.

    Raises:
        ValueError: an argument out of range.

    >>> trace = Sine(100.0, amplitude=0.8, period=20.0)
    >>> round(trace.bandwidth(5.0), 9), round(trace.bits(0.0, 40.0), 9), round(trace.finish(0.0, 4000.0), 9)
    (180.0, 4000.0, 40.0)
    """

    def __init__(self, mean: float, *, amplitude: float = 0.8, period: float = 30.0, phase: float = 0.0) -> None:
        positive(mean=mean, period=period)
        between(0, math.nextafter(1, 0), amplitude=amplitude)
        between(-1e6, 1e6, phase=phase)
        self._mean, self._amplitude, self._period, self._phase = mean, amplitude, period, phase

    def bandwidth(self, at: float) -> float:
        self.check(at, at)
        return self._mean * (1 + self._amplitude * math.sin(self._angle(at)))

    def bits(self, start: float, end: float) -> float:
        self.check(start, end)
        middle, reach = (self._angle(start) + self._angle(end)) / 2, math.pi * (end - start) / self._period
        wave = self._amplitude * self._period / math.pi * math.sin(middle) * math.sin(reach)
        return self._mean * (end - start + wave)

    def finish(self, start: float, bits: float) -> float:
        self.check(start, start, bits)
        each = self._mean * self._period  # bits of a whole period, wherever it starts
        periods = math.floor(bits / each)
        rest = bits - periods * each
        start += periods * self._period
        low, high, guess = 0.0, self._period, rest / self._mean
        for _ in range(100):
            missing = rest - self.bits(start, start + guess)
            low, high = (guess, high) if missing > 0 else (low, guess)
            step = guess + missing / self.bandwidth(start + guess)
            step = step if low <= step <= high else (low + high) / 2
            if abs(step - guess) <= 1e-13 * self._period:
                return start + step
            guess = step
        return start + guess

    def _angle(self, at: float) -> float:
        return 2 * math.pi * (at / self._period) + self._phase
