"""What transports over torch.distributed share: a group of their own, equal starts, and the comparison of digests."""

from __future__ import annotations

import math
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from acclimate.core.config import positive
from acclimate.wire.assembly import group_of_all, retire
from acclimate.wire.courier import Courier, Letter
from acclimate.wire.faults import Disagreement, LinkFault, LostPeer

__all__ = ["Ranks", "group_of_all", "timed_out"]


def timed_out(number: int, timeout: float, error: RuntimeError) -> str:
    """What to tell of a message that did not come."""
    first = str(error).partition("\n")[0]
    return (
        f"message {number} did not come from every rank within {timeout:g} s: a rank died, hangs, or sent a packet of "
        f"another length ({first}). See the other ranks' errors; start all of them again from one checkpoint."
    )


class Ranks:
    """The ranks of the running job and a CPU group among them.

    Arguments:
        timeout: s, after which a message that is missing ends the run with `LostPeer`. Longer than the longest pause
            of any rank, such as an evaluation that the others do not take part in.
        backend: of the group in which weights are shared and digests compared.

    Raises:
        ValueError: torch.distributed was not set up, or a timeout that is no positive number.
        LostPeer: a rank did not come here within the timeout; then all of them may try again.
    """

    def __init__(self, timeout: float, backend: str = "gloo") -> None:
        positive(timeout=timeout)
        if not dist.is_available() or not dist.is_initialized():
            raise ValueError(
                "torch.distributed is not set up. Start the script with torchrun and call "
                'torch.distributed.init_process_group("gloo") first.'
            )
        self._timeout = timeout
        self._limit = timedelta(milliseconds=math.ceil(1000 * timeout))
        self._group = group_of_all(backend, self._limit)
        self._courier = Courier()
        self._number = 0

    @property
    def group(self) -> dist.ProcessGroup:
        """In which messages go. LinkFault once this is closed."""
        group = vars(self).get("_group")
        if group is None:
            raise LinkFault(f"this {type(self).__name__} is closed. Make another, on all ranks.")
        return group

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def size(self) -> int:
        return dist.get_world_size()

    def now(self) -> float:
        return time.monotonic()

    def submit(self, packet: Tensor) -> Letter:
        """Send uint8 `[...]` to all ranks."""
        raise NotImplementedError

    def share(self, vector: Tensor) -> None:
        """Fill a vector on every rank with that of rank 0."""
        same = vector.detach().cpu().contiguous()
        try:
            dist.broadcast(same, 0, group=self.group)
        except RuntimeError as error:
            raise LostPeer(timed_out(self._number, self._timeout, error)) from error
        vector.detach().copy_(same)

    def agree(self, digest: bytes, what: str) -> None:
        """`Disagreement` on every rank unless all give the same digest, of one length."""
        own = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
        every = [torch.empty_like(own) for _ in range(self.size)]
        try:
            dist.all_gather(every, own, group=self.group)
        except RuntimeError as error:
            raise LostPeer(timed_out(self._number, self._timeout, error)) from error
        others = [rank for rank, each in enumerate(every) if not torch.equal(each, every[0])]
        if others:
            raise Disagreement(f"ranks {others} differ from rank 0 in {what}. Give every rank the same.")

    def close(self) -> None:
        self._courier.close()
        group = vars(self).pop("_group", None)
        if group is not None:
            retire(group, self)
