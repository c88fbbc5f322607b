"""Packets between processes over gloo, straight from each rank to each other."""

from __future__ import annotations

import time
from collections import deque

import torch
import torch.distributed as dist
from torch import Tensor

from acclimate.wire.courier import Courier, Letter
from acclimate.wire.faults import LostPeer
from acclimate.wire.ranks import Ranks, timed_out

__all__ = ["GlooTransport"]

_Work = dist.Work | None

_NUMBERS, _SHIFT, _LENGTHS = 1 << 11, 19, 524287
_MARK, _SHORT = 8, 128


class GlooTransport(Ranks):
    """Every rank sends its packet to every other [S: 9.2, the variant with tags].

    gloo runs collectives on two threads, so of all-gathers only two would progress at once and latency would not be
    pipelined; single sends and receives have no such limit. Each rank's link carries n - 1 copies of its packet.
    The tag names the message and its length: a packet of another length is never taken for the one that is waited for
    (gloo itself would end the process), and after the timeout both ends say what is missing. TCP brings a packet
    through a link that is down for less than the timeout; training then only stalls.

    To the rank after it each first sends a mark of 8 bytes, which is waited for long before: how long it takes from
    there to the end of the packet tells the bandwidth of the link, whatever the latency is; of more than one copy, the
    slowest of the last `2 (n - 1)` packets, since copies that share the link come first or last. Each link is measured
    by one rank, by packets of more than 128 bytes.

    Packets lie on the CPU, whatever the model is on, so the job may have been set up with nccl as well.

    Arguments:
        timeout: s; see `Ranks`.

    When it fails: `wait` raises `LostPeer`, on every rank within the timeout.

    >>> GlooTransport()
    Traceback (most recent call last):
    ...
    ValueError: torch.distributed is not set up. Start the script with torchrun and call torch.distributed.\
init_process_group("gloo") first.
    """

    spreads = True

    def __init__(self, *, timeout: float = 60.0) -> None:
        super().__init__(timeout)
        self._gauge = Courier()  # what comes from others must not hold up the measured link
        distances = range(1, self.size)
        self._peers = [(self.rank - distance) % self.size for distance in distances]  # rank before first, after last
        # copies leave in the order in which their receivers are ready: only the last one's time is the packet's
        self._passed = deque[tuple[float, int]](maxlen=1 if self.size <= 2 else 2 * (self.size - 1))
        self._mark = torch.zeros(_MARK, dtype=torch.uint8)
        self._expected = self._expect_mark()

    def submit(self, packet: Tensor) -> Letter:
        submitted, number, mark = time.monotonic(), self._number, self._expected
        tag = self._tag(number, len(packet))
        every = [packet if peer == self.rank else torch.empty_like(packet) for peer in range(self.size)]
        try:
            incoming = [dist.irecv(every[peer], peer, group=self._group, tag=tag) for peer in self._peers]
            self._number += 1
            self._expected = self._expect_mark()
            sent = [self._send_mark(number)]
            sent += [dist.isend(packet, peer, group=self._group, tag=tag) for peer in self._peers]
        except RuntimeError as error:
            raise LostPeer(timed_out(number, self._timeout, error)) from error

        def come(works: list[_Work]) -> float:
            """When all of them had come."""
            try:
                for work in works:
                    if work is not None:
                        work.wait(self._limit)
            except RuntimeError as error:
                raise LostPeer(timed_out(number, self._timeout, error)) from error
            return time.monotonic()

        def measure() -> list[Tensor]:
            first = max(submitted, come([mark]))
            last = come(incoming[:1])
            if incoming and len(packet) > _SHORT:
                self._passed.append((last - first, len(packet)))
                letter.spread = max(seconds * min(1, len(packet) / length) for seconds, length in self._passed)
            return []

        def receive() -> list[Tensor]:
            measured.wait()
            come([*incoming[1:], *sent])
            return every

        bits = 8 * len(packet)
        measured, letter = Letter(submitted, bits, measure), Letter(submitted, bits, receive)
        self._gauge.take(measured)
        return self._courier.take(letter)

    @staticmethod
    def _tag(number: int, length: int) -> int:
        """Even for packets; marks have the odd one of length 0."""
        return (number % _NUMBERS) << _SHIFT + 1 | length % _LENGTHS << 1

    def _expect_mark(self) -> _Work:
        """Of the next message, from the rank before, for which its data can leave without being asked for."""
        if not self._peers:
            return None
        return dist.irecv(self._mark, self._peers[0], group=self._group, tag=self._tag(self._number, 0) | 1)

    def _send_mark(self, number: int) -> _Work:
        if not self._peers:
            return None
        return dist.isend(self._mark, self._peers[-1], group=self._group, tag=self._tag(number, 0) | 1)

    def close(self) -> None:
        self._gauge.close()
        super().close()
