"""Packets between processes over gloo, straight from each rank to each other."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist
from torch import Tensor

from acclimate.wire.courier import Letter
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
    bandwidth of the link whatever the latency is, and each link is measured by one rank. Packets of at most 128 bytes
    go in one piece.

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

    def submit(self, packet: Tensor) -> Letter:
        submitted, number = time.monotonic(), self._number
        self._number += 1
        tag = (number % _NUMBERS) << _SHIFT + 1 | len(packet) % _LENGTHS << 1
        peers = [(self.rank - distance) % self.size for distance in range(1, self.size)]  # the rank before comes first
        every = [packet if peer == self.rank else torch.empty_like(packet) for peer in range(self.size)]
        cut = _HEAD if len(packet) > 2 * _HEAD else 0
        try:
            heads, rests = list[_Work](), list[_Work]()
            for peer in peers:
                if cut and peer == peers[0]:
                    heads.append(dist.irecv(every[peer][:cut], peer, group=self._group, tag=tag | 1))
                rest = every[peer][cut:] if peer == peers[0] else every[peer]
                rests.append(dist.irecv(rest, peer, group=self._group, tag=tag))
            for peer in reversed(peers):
                if cut and peer == peers[-1]:
                    heads.append(dist.isend(packet[:cut], peer, group=self._group, tag=tag | 1))
                rest = packet[cut:] if peer == peers[-1] else packet
                rests.append(dist.isend(rest, peer, group=self._group, tag=tag))
        except RuntimeError as error:
            raise LostPeer(timed_out(number, self._timeout, error)) from error

        def wait(work: _Work) -> None:
            assert work is not None
            work.wait(self._limit)

        def receive() -> list[Tensor]:
            try:
                for work in heads[:1]:
                    wait(work)
                first = time.monotonic()
                for place, work in enumerate(rests):
                    wait(work)
                    if heads and place == 0:
                        letter.spread = time.monotonic() - first
                for work in heads[1:]:
                    wait(work)
            except RuntimeError as error:
                raise LostPeer(timed_out(number, self._timeout, error)) from error
            return every

        letter = Letter(submitted, 8 * len(packet), receive)
        return self._courier.take(letter)
