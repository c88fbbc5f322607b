"""A virtual clock: when computing ends and messages arrive, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acclimate.core.config import positive, whole
from acclimate.links.trace import Trace

__all__ = ["Lane", "Timeline", "VirtualLink", "timeline"]


class VirtualLink:
    """A worker's link: messages queue for its bandwidth, then travel for the latency, any number at once. [D]

    `L = finish(max(at, L before), bits)` and `A = L + b`. Everything is as exact as the trace.

    Arguments:
        trace: bandwidth over time.
        latency: b, seconds, 0 or more.
        free: when the link is first free.

    Attributes:
        spread: s between the first and the last bit of the latest message.

    Raises:
        ValueError: an argument out of range.

    >>> from acclimate.links.traces import constant
    >>> link = VirtualLink(constant(100.0), latency=1.0)
    >>> link.send(0.0, 50.0), link.send(0.25, 50.0), link.free
    (1.5, 2.0, 1.0)
    """

    def __init__(self, trace: Trace, latency: float, free: float = 0.0) -> None:
        trace.check(0, latency)
        trace.check(0, free)
        self.trace, self.latency, self.free = trace, latency, free
        self.spread = 0.0

    def send(self, at: float, bits: float) -> float:
        """When a message that is handed over at `at`, in seconds, has arrived; messages queue in the order of calls."""
        begin = max(at, self.free)
        self.free = self.trace.finish(begin, bits)
        self.spread = self.free - begin
        return self.free + self.latency


class Lane:
    """A worker's compute: one piece of work at a time.

    >>> lane = Lane()
    >>> lane.run(1.0, 0.5), lane.run(0.0, 0.5)
    (1.5, 2.0)
    """

    def __init__(self, free: float = 0.0) -> None:
        self.free = free

    def run(self, ready: float, seconds: float) -> float:
        """When work is done that may begin at `ready` and takes `seconds`, 0 or more."""
        if not seconds >= 0:
            raise ValueError(f"seconds must be 0 or more, found {seconds!r}.")
        self.free = max(ready, self.free) + seconds
        return self.free


@dataclass(frozen=True, slots=True)
class Timeline:
    """When everything happened, in seconds: a row for each iteration, with a number for each worker.

    Attributes:
        computed: C, when an iteration's work was done.
        arrived: A, when its messages were there.
    """

    computed: tuple[tuple[float, ...], ...]
    arrived: tuple[tuple[float, ...], ...]

    def period(self, skip: int) -> float:
        """Mean seconds per iteration after the first `skip`, of the slowest worker.

        The pattern repeats every tau + 1 iterations: average over a multiple of that.
        """
        whole(0, skip=skip)
        ends = [max(row) for row in self.computed]
        if skip >= len(ends) - 1:
            raise ValueError(f"found {len(ends)} iterations, expected more than {skip + 1}.")
        return (ends[-1] - ends[skip]) / (len(ends) - 1 - skip)


def timeline(
    links: Sequence[VirtualLink], *, steps: int, staleness: int, bits: float, compute: float | Sequence[float]
) -> Timeline:
    """Iterations of workers that wait for each other's messages and for nothing else. [D]

    `start_s = max(C_(s-1), max_i A_(s-1-tau)^i)`, `C_s = start_s + T`, `L_s = finish(max(C_s, L_(s-1)), bits)`,
    `A_s = L_s + b`.

    Arguments:
        links: one of each worker; they are used up to the end of the run.
        steps: iterations, 1 or more.
        staleness: tau, 0 or more.
        bits: of a message, 0 or more.
        compute: T, seconds above 0, of all workers or of each.

    Raises:
        ValueError: an argument out of range.

    >>> from acclimate.links.traces import constant
    >>> links = [VirtualLink(constant(1e6), 0.2)]
    >>> round(timeline(links, steps=51, staleness=1, bits=5e4, compute=0.1).period(skip=10), 6)
    0.175
    """
    whole(1, steps=steps, workers=len(links))
    whole(0, staleness=staleness)
    each = [float(compute)] * len(links) if isinstance(compute, (int, float)) else list(compute)
    if len(each) != len(links):
        raise ValueError(f"found compute times of {len(each)} workers, expected {len(links)}, one for each link.")
    for seconds in each:
        positive(compute=seconds)
    lanes = [Lane() for _ in links]
    computed: list[tuple[float, ...]] = []
    arrived: list[tuple[float, ...]] = []
    for step in range(steps):
        ready = max(arrived[step - 1 - staleness]) if step > staleness else 0.0
        computed.append(tuple(lane.run(ready, seconds) for lane, seconds in zip(lanes, each, strict=True)))
        arrived.append(tuple(link.send(at, bits) for link, at in zip(links, computed[-1], strict=True)))
    return Timeline(tuple(computed), tuple(arrived))
