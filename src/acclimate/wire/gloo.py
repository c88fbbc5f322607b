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

_NUMBERS, _SHIFT, _LENGTHS = 1 << 12, 19, 524287


class GlooTransport(Ranks):
    """Every rank sends its packet to every other [S: 9.2, the variant with tags].

    gloo runs collectives on two threads, so of all-gathers only two would progress at once and latency would not be
    pipelined; single sends and receives have no such limit. Each rank's link carries n - 1 copies of its packet.
    The tag names the message and its length: a packet of another length is never taken for the one that is waited for
    (gloo itself would end the process), and after the timeout both ends say what is missing. TCP brings a packet
    through a link that is down for less than the timeout; training then only stalls.

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

    def __init__(self, *, timeout: float = 60.0) -> None:
        super().__init__(timeout)

    def submit(self, packet: Tensor) -> Letter:
        submitted, number = time.monotonic(), self._number
        self._number += 1
        tag = (number % _NUMBERS) << _SHIFT | len(packet) % _LENGTHS
        peers = [peer for peer in range(self.size) if peer != self.rank]
        every = [packet if peer == self.rank else torch.empty_like(packet) for peer in range(self.size)]
        try:
            works = [dist.irecv(every[peer], peer, group=self._group, tag=tag) for peer in peers]
            works += [dist.isend(packet, peer, group=self._group, tag=tag) for peer in peers]
        except RuntimeError as error:
            raise LostPeer(timed_out(number, self._timeout, error)) from error

        def receive() -> list[Tensor]:
            try:
                for work in works:
                    assert work is not None
                    work.wait(self._limit)
            except RuntimeError as error:
                raise LostPeer(timed_out(number, self._timeout, error)) from error
            return every

        return self._courier.take(Letter(submitted, 8 * len(packet), receive))
