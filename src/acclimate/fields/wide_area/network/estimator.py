"""Bandwidth, latency and compute time, from messages that were sent anyway."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from acclimate.core.config import between, positive, whole
from acclimate.fields.wide_area.policy.conditions import Report
from acclimate.fields.wide_area.policy.state import expect_keys

__all__ = ["PROBE_BITS", "Estimator", "Seen"]

PROBE_BITS = (8 * 64 * 2**10, 8 * 2**20)
"""Bits of a bandwidth probe's messages, at least and at most; two are to be sent back to back. [I]"""

_ALIKE = 0.3
_SAME = 1e-6
_STATE = ("computes", "seen", "bandwidth", "latency", "quiet", "queued")


class Seen(NamedTuple):
    """A message that was delivered.

    Attributes:
        bits: m.
        waited: D - t, seconds from submission until it was everywhere.
        lead: D_before - t, how long before the delivery of the one before it was submitted; NaN for the first.
        bandwidth: the estimate of that time.
        spread: s between its first and its last bit; NaN where the transport cannot tell.
        copies: how many spreads one after the other it takes of the link.
    """

    bits: float
    waited: float
    lead: float
    bandwidth: float
    spread: float
    copies: float = 1.0


class Estimator:
    """Measures one worker's T, a, b. [I]

    With messages of m bits, submitted at t, delivered everywhere at D. Where the transport tells how long each took
    from its first bit to its last, its spread s, which neither queue nor latency changes:

    - `a = sum m / sum c s` over the last `few`, c copies of each;
    - `b = min (D - t - s)` over those of the last `3 every` that did not wait for the one before, `D - s > D_before`;
      without such ones it does not grow.

    Elsewhere:

    - a message surely found the link busy if `t < D_before - w`, w the shortest `D - t` of the last `3 every`, which is
      more than b; over the last `every` of those, `a = sum m / sum (D - D_before)`, smoothed by `weight`;
    - without busy ones, 1 / a is the slope of the line closest below all `D - t` over m, given two sizes;
    - `b = min (D - t - m / a)` over the last `3 every` that were not busy and saw a bandwidth within 30 % of a; without
      such ones b stays, and while most are busy, any of which may have queued, it does not grow.

    T is the median of the last `every`. What is told of a is at most `growth M / T`, M the most bits of an iteration in
    the last `few`, or in all without spreads: short messages pass the burst of a token bucket at once, and say nothing
    of how long far larger ones take. Clocks are local: only durations on one machine enter. Without spreads it fails
    where messages neither queue nor differ in size: `needs_probe` says so; and when latency grows, a is too small until
    the messages before are forgotten. On a link that never idles from the first message on, b contains the queue. If D
    is when the packets of all workers were there, not only the own one, b contains the wait for slower machines, which
    `agreed` takes off.

    Arguments:
        every: E, messages, 2 or more.
        weight: of the newest bandwidth, in (0, 1], without spreads.
        few: messages, 1 or more.
        growth: how many times larger than those that were sent messages may become at once, 1 or more.

    Attributes:
        pieces: messages of an iteration, 1 unless whoever sends them says so.

    Raises:
        ValueError: an argument out of range.

    >>> estimator = Estimator()
    >>> estimator.observe_compute(0.05)
    >>> for number in range(3):  # handed over at once: 100 bit/s, and 1 s on the way
    ...     estimator.observe(submitted=0.0, bits=50.0, delivered=1.5 + 0.5 * number)
    >>> estimator.report()
    Report(compute=0.05, bandwidth=100.0, latency=1.0)
    """

    def __init__(self, every: int = 20, weight: float = 0.5, few: int = 5, growth: float = 8.0) -> None:
        whole(2, every=every)
        whole(1, few=few)
        between(1, 1e9, growth=growth)
        between(1e-6, 1, weight=weight)
        self._every, self._weight, self._few, self._growth = every, weight, few, growth
        self.pieces = 1
        self._computes: deque[float] = deque(maxlen=every)
        self._seen: deque[Seen] = deque(maxlen=3 * every)
        self._delivered = math.nan
        self._bandwidth = self._latency = math.nan
        self._quiet = 0
        self._queued = False  # whether bandwidth is from messages that found the link busy

    def observe_compute(self, seconds: float) -> None:
        """Take in the seconds of an iteration's own work, waiting apart; above 0."""
        positive(seconds=seconds)
        self._computes.append(seconds)

    def observe(
        self, submitted: float, bits: float, delivered: float, spread: float = math.nan, copies: float = 1.0
    ) -> None:
        """Take in a message, in the order of submission.

        Arguments:
            submitted, delivered: seconds on this machine's clock, whatever its zero, in order.
            bits: above 0.
            spread: s from its first bit to its last, 0 or more; NaN where that is not known. No more than the wait
                counts.
            copies: how many spreads one after the other the packet takes of its sender's link, 1 or more.

        Raises:
            ValueError: an argument out of range.
        """
        positive(bits=bits)
        between(1, 1e6, copies=copies)
        if not -math.inf < submitted <= delivered < math.inf:
            raise ValueError(f"found a message submitted at {submitted!r} s and delivered at {delivered!r} s.")
        if spread < 0 or spread == math.inf:
            raise ValueError(f"found a spread of {spread!r} s; expected a finite one of 0 or more, or NaN.")
        waited, lead = delivered - submitted, self._delivered - submitted  # the lead is NaN for the first
        spread = waited if spread > waited else spread
        self._seen.append(Seen(bits, waited, lead, math.nan, spread, copies))
        self._delivered = delivered
        if not math.isnan(spread):
            self._quiet = 0
            self._follow_spreads()
            return
        shortest = min(each.waited for each in self._seen)
        self._quiet = 0 if lead > shortest else self._quiet + 1
        self._update_bandwidth(shortest)
        self._seen[-1] = self._seen[-1]._replace(bandwidth=self._bandwidth)
        self._update_latency(shortest)

    def report(self) -> Report:
        """T, a, b as far as they are known; NaN where not."""
        if not self._computes:
            return Report(math.nan, self._bandwidth, self._latency)
        compute = statistics.median(self._computes)
        return Report(compute, min(self._bandwidth, self._growth * self._sent() / compute), self._latency)

    @property
    def needs_probe(self) -> bool:
        """Whether bandwidth is unknown, or no message has found the link busy for `5 every` messages."""
        return math.isnan(self._bandwidth) or self._quiet >= 5 * self._every

    def _sent(self) -> float:
        """The most bits of an iteration, of those that are known to have come."""
        bits = [each.bits for each in self._told()[-self._few * self.pieces :] or self._seen]
        if not bits:
            return math.inf
        if len(bits) < self.pieces:  # of an iteration in more pieces than are kept
            return self.pieces * statistics.fmean(bits)
        starts = range(len(bits) % self.pieces, len(bits), self.pieces)
        return max(sum(bits[start : start + self.pieces]) for start in starts)

    def _told(self) -> list[Seen]:
        """Messages whose spread is known."""
        return [each for each in self._seen if not math.isnan(each.spread)]

    def _follow_spreads(self) -> None:
        told = self._told()
        firsts = [(each.waited - each.spread, each) for each in told]
        idle = [first for first, each in firsts if not each.lead >= first * (1 - _SAME)]
        known = [self._latency] if self._latency >= 0 else []
        self._latency = max(0.0, min(idle or [*known, min(first for first, _ in firsts)]))
        newest = told[-self._few :]
        spent = sum(each.copies * each.spread for each in newest)
        if spent > 0:
            self._bandwidth, self._queued = sum(each.bits for each in newest) / spent, True

    def _update_bandwidth(self, shortest: float) -> None:
        busy = [each for each in self._seen if each.lead > shortest][-self._every :]
        spent = sum(each.waited - each.lead for each in busy)
        if spent <= 0:
            if (slope := _slope(self._seen)) > 0:
                self._bandwidth, self._queued = 1 / slope, False
        elif self._quiet == 0 or not self._queued:
            weight = self._weight if self._queued else 1.0
            raw = sum(each.bits for each in busy) / spent
            self._bandwidth = raw if weight == 1 else weight * raw + (1 - weight) * self._bandwidth
            self._queued = True

    def _update_latency(self, shortest: float) -> None:
        if math.isnan(self._bandwidth):
            return
        close = self._bandwidth * _ALIKE
        fitting = [
            each.waited - each.bits / self._bandwidth
            for each in self._seen
            if not each.lead > shortest and not abs(each.bandwidth - self._bandwidth) > close
        ]
        if not fitting and math.isnan(self._latency):
            fitting = [each.waited - each.bits / self._bandwidth for each in self._seen]
        if fitting:
            found = max(0.0, min(fitting))
            queued = 2 * sum(each.lead > shortest for each in self._seen) > len(self._seen)
            self._latency = min(found, self._latency) if queued and self._latency >= 0 else found

    def state_dict(self) -> dict[str, Any]:
        """What was measured, as JSON values. The clock is left out: the first message after it counts as not queued."""
        return {
            "computes": list(self._computes),
            "seen": [[_or_none(number) for number in each] for each in self._seen],
            "bandwidth": _or_none(self._bandwidth),
            "latency": _or_none(self._latency),
            "quiet": self._quiet,
            "queued": self._queued,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` returned. ValueError for anything else."""
        expect_keys(state, _STATE, "the estimator")
        seen = [Seen(*(_or_nan(number) for number in each)) for each in state["seen"]]
        self._seen = deque(seen, maxlen=3 * self._every)
        self._computes = deque(map(float, state["computes"]), maxlen=self._every)
        self._bandwidth, self._latency = _or_nan(state["bandwidth"]), _or_nan(state["latency"])
        self._quiet, self._queued, self._delivered = int(state["quiet"]), bool(state["queued"]), math.nan


def _slope(seen: Iterable[Seen]) -> float:
    """Seconds per bit of the line below all waits that is closest to them; 0 where there is none that rises."""
    hull: list[tuple[float, float]] = []
    points = sorted((each.bits, each.waited) for each in seen)
    for x, y in points:
        if hull and hull[-1][0] == x:
            continue
        while len(hull) > 1 and _turns_down(hull[-2], hull[-1], (x, y)):
            hull.pop()
        hull.append((x, y))
    middle = sum(x for x, _ in points) / len(points)
    for (left, low), (right, high) in itertools.pairwise(hull):
        if right >= middle:
            return max(0.0, (high - low) / (right - left))
    return 0.0


def _turns_down(one: tuple[float, float], two: tuple[float, float], three: tuple[float, float]) -> bool:
    return (two[1] - one[1]) * (three[0] - one[0]) >= (three[1] - one[1]) * (two[0] - one[0])


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else float(number)
