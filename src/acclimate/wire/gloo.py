"""Packets between processes over gloo, straight from each rank to each other."""

from __future__ import annotations

import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from acclimate.core.config import between
from acclimate.wire.courier import Courier, Letter
from acclimate.wire.faults import LostPeer
from acclimate.wire.ranks import Ranks, timed_out

__all__ = ["GlooTransport"]

_Work = dist.Work | None

_NUMBERS, _SHIFT, _LENGTHS = 1 << 11, 19, 524287
_HEAD = 64


class GlooTransport(Ranks):
    """Every rank sends its packet to every other [S: 9.2, the variant with tags].

    gloo runs collectives on two threads, so of all-gathers only two would progress at once and latency would not be
    pipelined; single sends and receives have no such limit. Each rank's link carries n - 1 copies of its packet.
    The tag names the message and its length: a packet of another length is never taken for the one that is waited for
    (gloo itself would end the process), and after the timeout both ends say what is missing. TCP brings a packet
    through a link that is down for less than the timeout; training then only stalls.

    To the rank after it each sends the first 64 bytes by themselves: how long the rest takes after them tells the
    bandwidth of its link, whatever latency, queue and other ranks do. Packets of at most 128 bytes go in one piece, and
    tell none.

    Packets lie on the CPU, whatever the model is on, so the job may have been set up with nccl as well.

    Arguments:
        timeout: s; see `Ranks`.
        copies: how often a packet passes its sender's link, one after the other; n - 1 by default. Copies of far more
            than 64 KiB go side by side, and where paths share no link they hinder each other not at all: then 1. With
            too many, links are told too slow, and are not filled; with too few, messages queue.

    When it fails: `wait` raises `LostPeer`, on every rank within the timeout.

    Raises:
        ValueError: as `Ranks`, or copies below 1.

    >>> GlooTransport()
    Traceback (most recent call last):
    ...
    ValueError: torch.distributed is not set up. Start the script with torchrun and call torch.distributed.\
init_process_group("gloo") first.
    """

    spreads = True

    def __init__(self, *, timeout: float = 60.0, copies: float | None = None) -> None:
        between(1, 1e6, copies=1.0 if copies is None else copies)
        super().__init__(timeout)
        self._gauge = Courier()  # what comes from other ranks must not hold up the measured link
        self._copies = float(copies or max(1, self.size - 1))

    def submit(self, packet: Tensor) -> Letter:
        submitted, number, group = time.monotonic(), self._number, self.group
        self._number += 1
        tag = (number % _NUMBERS) << _SHIFT + 1 | len(packet) % _LENGTHS << 1
        # the rank before comes first, the rank after last
        peers = [(self.rank - distance) % self.size for distance in range(1, self.size)]
        every = [packet if peer == self.rank else torch.empty_like(packet) for peer in range(self.size)]
        cut = _HEAD if len(packet) > 2 * _HEAD else 0
        measured, others = list[_Work](), list[_Work]()
        try:
            for peer in peers[:1]:
                if cut:
                    measured.append(dist.irecv(every[peer][:cut], peer, group=group, tag=tag | 1))
                measured.append(dist.irecv(every[peer][cut:], peer, group=group, tag=tag))
            others += [dist.irecv(every[peer], peer, group=group, tag=tag) for peer in peers[1:]]
            if cut and peers:
                others.append(dist.isend(packet[:cut], peers[-1], group=group, tag=tag | 1))
            for peer in peers:
                rest = packet[cut:] if peer == peers[-1] else packet
                others.append(dist.isend(rest, peer, group=group, tag=tag))
        except RuntimeError as error:
            raise LostPeer(timed_out(number, self._timeout, error)) from error

        def come(works: list[_Work]) -> list[float]:
            """When each of them had come."""
            times, ending = list[float](), time.monotonic() + self._timeout
            try:
                for work in works:
                    assert work is not None
                    work.wait(timedelta(seconds=max(1e-3, ending - time.monotonic())))
                    times.append(time.monotonic())
            except RuntimeError as error:
                raise LostPeer(timed_out(number, self._timeout, error)) from error
            return times

        def measure() -> list[Tensor]:
            times = come(measured)
            if cut and times:
                letter.spread = times[1] - times[0]
            return []

        def receive() -> list[Tensor]:
            own.wait()
            come(others)
            return every

        bits = 8 * len(packet)
        own, letter = Letter(submitted, bits, measure), Letter(submitted, bits, receive, self._copies)
        self._gauge.take(own)
        return self._courier.take(letter)

    def close(self) -> None:
        self._gauge.stop()
        super().close()
