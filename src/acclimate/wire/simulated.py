"""Virtual workers in one process: real numbers, simulated time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from acclimate.core.config import whole
from acclimate.links.clock import VirtualLink
from acclimate.links.topology import FanOut, fan_out
from acclimate.links.traces import Trace
from acclimate.wire.faults import Disagreement
from acclimate.wire.transport import Timing

__all__ = ["SimulatedTransport", "World", "world"]


@dataclass(eq=False)
class _Message:
    packets: list[Tensor | None]
    delivered: list[float]
    fetched: int = 0


@dataclass(eq=False)
class World:
    """What the virtual workers have in common; made by `world`."""

    links: list[VirtualLink]
    copies: float = 1.0
    messages: dict[int, _Message] = field(default_factory=dict)
    shared: list[Tensor] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)


def world(size: int, links: Sequence[tuple[Trace, float]], *, topology: str = "server") -> list[SimulatedTransport]:
    """One transport for each of `size` virtual workers, on a common virtual clock that starts at 0 s.

    Arguments:
        size: n, 1 or more.
        links: each worker's trace of bandwidth (bit/s) and latency (s); a single one is every worker's.
        topology: how often a packet passes its sender's link, and how often the latency; a name in `TOPOLOGIES`.

    Workers take turns: each begins, computes and ends an iteration, then the next worker does. Rank 0 goes first.

    Raises:
        ValueError: no workers, a number of links that is neither 1 nor n, or an unknown topology.
    """
    whole(1, size=size)
    if len(links) not in (1, size):
        raise ValueError(f"found {len(links)} links for {size} workers. Give one for all, or one for each.")
    each = list(links) * size if len(links) == 1 else list(links)
    way = fan_out(topology, size) if size > 1 else FanOut(1.0, 1)
    common = World([VirtualLink(trace, latency * way.hops) for trace, latency in each], way.copies)
    return [SimulatedTransport(rank, size, common) for rank in range(size)]


class _Virtual:
    """A message of a virtual worker; a `Handle`."""

    def __init__(self, owner: SimulatedTransport, common: World, number: int, timing: Timing) -> None:
        self._owner, self._common, self._number = owner, common, number
        self._timing = timing
        self._packets: list[Tensor] | None = None

    def wait(self) -> list[Tensor]:
        if self._packets is None:
            message = self._common.messages[self._number]
            missing = [rank for rank, packet in enumerate(message.packets) if packet is None]
            if missing:
                raise RuntimeError(
                    f"rank {self._owner.rank} waits for message {self._number}, which ranks {missing} have not sent. "
                    "Let every worker end an iteration before the first begins the next."
                )
            self._packets = [packet for packet in message.packets if packet is not None]
            self._timing = replace(self._timing, delivered=max(message.delivered))
            self._owner.arrived(self._number, self._timing.delivered)
        return self._packets

    @property
    def timing(self) -> Timing:
        return self._timing


class SimulatedTransport:
    """One virtual worker's end [D: recurrences of 4.1].

    A message leaves when its worker has computed and its link is free, takes what the trace says, and is delivered a
    latency later; a worker that waits for it stands still until the last rank's packet is there. Nothing depends on the
    speed of the machine.

    >>> import torch
    >>> from acclimate.links.traces import constant
    >>> (worker,) = world(1, [(constant(1000.0), 0.25)])
    >>> worker.compute(1.0)
    >>> handle = worker.submit(torch.zeros(125, dtype=torch.uint8))
    >>> _ = handle.wait()
    >>> worker.now(), worker.stalled
    (2.25, 1.25)
    """

    spreads = True

    def __init__(self, rank: int, size: int, common: World) -> None:
        self.rank, self.size = rank, size
        self.stalled = 0.0
        self.sent_bits = 0
        self._common, self._now = common, 0.0
        self._number, self._shares, self._agreements = 0, 0, 0

    def now(self) -> float:
        return self._now

    def compute(self, seconds: float) -> None:
        """Let this worker's clock run, as for a forward and backward pass."""
        self._now += seconds

    def submit(self, packet: Tensor) -> _Virtual:
        bits, number = 8 * len(packet), self._number
        self._number += 1
        self.sent_bits += bits
        empty = _Message([None] * self.size, [0.0] * self.size)
        message = self._common.messages.setdefault(number, empty)
        message.packets[self.rank] = packet
        link = self._common.links[self.rank]
        arrival = message.delivered[self.rank] = link.send(self._now, bits * self._common.copies)
        return _Virtual(self, self._common, number, Timing(self._now, bits, arrival, link.spread, arrival))

    def arrived(self, number: int, delivered: float) -> None:
        """Move the clock on to a delivery; forget a message that no worker waits for any more."""
        self.stalled += max(0.0, delivered - self._now)
        self._now = max(self._now, delivered)
        message = self._common.messages[number]
        message.fetched += 1
        if message.fetched == self.size:
            del self._common.messages[number]

    def share(self, vector: Tensor) -> None:
        if self._shares == len(self._common.shared):
            if self.rank != 0:
                raise RuntimeError(
                    f"rank {self.rank} asks for weights of rank 0, which has given none. Build it first."
                )
            self._common.shared.append(vector.detach().clone())
        vector.detach().copy_(self._common.shared[self._shares])
        self._shares += 1

    def agree(self, digest: bytes, what: str) -> None:
        if self._agreements == len(self._common.digests):
            self._common.digests.append(digest)
        if self._common.digests[self._agreements] != digest:
            raise Disagreement(f"rank {self.rank} differs from the first in {what}. Give every rank the same.")
        self._agreements += 1

    def close(self) -> None: ...
