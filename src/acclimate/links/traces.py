"""Bandwidth over time, ready made: constant, sine, Markov, uniform, a sudden drop, or as recorded. [I]"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from acclimate.core.config import positive, whole
from acclimate.links.piecewise import Piecewise
from acclimate.links.recorded import recorded
from acclimate.links.sine import Sine
from acclimate.links.trace import Trace

__all__ = ["Sine", "Trace", "constant", "markov", "recorded", "sine", "step_drop", "uniform"]


def constant(rate: float) -> Trace:
    """The same bandwidth for ever; bit/s, above 0.

    >>> constant(100.0).finish(1.0, 50.0)
    1.5
    """
    positive(rate=rate)
    return Piecewise([(math.inf, rate)])


def sine(mean: float, *, amplitude: float = 0.8, period: float = 30.0, phase: float = 0.0) -> Trace:
    """A sine about the mean; arguments and errors as for `Sine`.

    >>> round(sine(100.0, period=20.0).bandwidth(15.0), 9)
    20.0
    """
    return Sine(mean, amplitude=amplitude, period=period, phase=phase)


def step_drop(rate: float, *, at: float, share: float = 0.1, seconds: float = math.inf) -> Trace:
    """Bandwidth that falls to a share of itself.

    Arguments:
        rate: bit/s before, above 0.
        at: when it falls, seconds, above 0.
        share: of the bandwidth that is left, above 0.
        seconds: how long it stays low, above 0; for ever by default.

    Raises:
        ValueError: an argument out of range.

    >>> step_drop(100.0, at=2.0, seconds=1.0).bits(0.0, 4.0)
    310.0
    """
    positive(rate=rate, at=at, share=share)
    if not seconds > 0:
        raise ValueError(f"seconds must be above 0, found {seconds!r}.")
    return Piecewise([(at, rate), (seconds, rate * share), (math.inf, rate)])


def markov(high: float, low: float, *, stay_high: float = 10.0, stay_low: float = 5.0, seed: int = 0) -> Trace:
    """Two states, each left after a time that is exponentially distributed; it begins high.

    Arguments:
        high, low: bit/s in the two states, above 0.
        stay_high, stay_low: mean seconds in each, above 0.
        seed: of a private generator, 0 or more.

    Raises:
        ValueError: an argument out of range.

    >>> markov(9.0, 1.0, seed=3).bandwidth(0.0)
    9.0
    """
    positive(high=high, low=low, stay_high=stay_high, stay_low=stay_low)
    whole(0, seed=seed)
    return Piecewise(_switching(((high, stay_high), (low, stay_low)), np.random.default_rng(seed)))


def _switching(
    states: tuple[tuple[float, float], ...], generator: np.random.Generator
) -> Iterator[tuple[float, float]]:
    while True:
        for rate, stay in states:
            yield max(float(generator.exponential(stay)), 1e-9 * stay), rate


def uniform(low: float, high: float, *, every: float = 5.0, seed: int = 0) -> Trace:
    """Bandwidth drawn evenly from `[low, high)` anew, every few seconds.

    Arguments:
        low, high: bit/s, above 0, in order.
        every: seconds, above 0.
        seed: of a private generator, 0 or more.

    Raises:
        ValueError: an argument out of range.

    >>> trace = uniform(1.0, 3.0, every=2.0)
    >>> trace.bandwidth(0.0) == trace.bandwidth(1.9) != trace.bandwidth(2.0)
    True
    """
    positive(low=low, high=high, every=every)
    whole(0, seed=seed)
    if high < low:
        raise ValueError(f"found low {low!r} above high {high!r}, expected them in order.")
    return Piecewise(_drawn(low, high, every, np.random.default_rng(seed)))


def _drawn(low: float, high: float, every: float, generator: np.random.Generator) -> Iterator[tuple[float, float]]:
    while True:
        yield every, float(generator.uniform(low, high))
