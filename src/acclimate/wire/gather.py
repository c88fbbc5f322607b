"""Packets by the all-gather of any backend of torch.distributed, such as nccl."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist
from torch import Tensor

from acclimate.core.config import whole
from acclimate.wire.assembly import retire
from acclimate.wire.courier import Letter
from acclimate.wire.faults import LostPeer
from acclimate.wire.ranks import Ranks, group_of_all, timed_out

__all__ = ["GatherTransport"]


class GatherTransport(Ranks):
    """All-gathers of equal packets, over several groups in turn [S: 9.2].

    A communicator of nccl works off its collectives one after the other, and a group of gloo two at a time: with one
    group latency would not be pipelined. With nccl a packet goes through the memory of the current accelerator.

    Arguments:
        groups: how many; half the largest staleness plus one for gloo, the largest staleness plus one for nccl.
        backend: "nccl" or "gloo".
        timeout: s; see `Ranks`.

    When it fails: a rank that is gone raises `LostPeer`. Unlike in `GlooTransport`, packets of different lengths are
    not caught before they reach the backend, which may end the process; the weights of all ranks stay as they were.

    >>> GatherTransport(groups=0)
    Traceback (most recent call last):
    ...
    ValueError: groups must be a whole number of at least 1, found 0.
    """

    spreads = False

    def __init__(self, *, groups: int = 5, backend: str = "nccl", timeout: float = 60.0) -> None:
        whole(1, groups=groups)
        super().__init__(timeout)
        self._groups = [group_of_all(backend, self._limit) for _ in range(groups)]
        self._device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")

    def submit(self, packet: Tensor) -> Letter:
        number = self._number
        self._number += 1
        own = packet.to(self._device)
        every = [torch.empty_like(own) for _ in range(self.size)]
        submitted = time.monotonic()
        try:
            work = dist.all_gather(every, own, group=self._groups[number % len(self._groups)], async_op=True)
        except RuntimeError as error:
            raise LostPeer(timed_out(number, self._timeout, error)) from error

        def receive() -> list[Tensor]:
            try:
                assert work is not None
                work.wait(self._limit)
                return [each.cpu() for each in every]
            except RuntimeError as error:
                raise LostPeer(timed_out(number, self._timeout, error)) from error

        return self._courier.take(Letter(submitted, 8 * len(packet), receive))

    def close(self) -> None:
        super().close()
        while self._groups:
            retire(self._groups.pop(), self)
