"""Messages between two ranks over gloo: a label that comes first, and a body whose length both know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from acclimate.wire.faults import LostPeer
from acclimate.wire.ranks import Ranks

__all__ = ["Arriving", "Leaving", "Mail", "Peers"]

_Start = Callable[..., "dist.Work | None"]

_EPOCHS, _NUMBERS, _LENGTHS = 1 << 6, 1 << 9, 32749


class Leaving(Protocol):
    """A message under way from this rank."""

    def wait(self) -> None:
        """Return when its receiver has taken it. `LostPeer` if it does not within the timeout."""
        ...


class Arriving(Protocol):
    """A message under way to this rank; both methods may be called again."""

    def label(self) -> bytes:
        """What its sender put on it. `LostPeer` if it does not come within the timeout."""
        ...

    def body(self) -> Tensor:
        """uint8 `[length]` on the CPU. `LostPeer` as for `label`."""
        ...


class Mail(Protocol):
    """Messages to and from single ranks, each pair's in the order in which they were sent."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def send(self, peer: int, label: bytes, body: Tensor) -> Leaving:
        """Send a label and uint8 `[length]` on the CPU; returns at once."""
        ...

    def receive(self, peer: int, label: int, body: int) -> Arriving:
        """Ask for the next message of a peer, of so many bytes; returns at once."""
        ...

    def excuse(self, peers: Sequence[int], label: bytes) -> None:
        """Send a label without a body instead of the next message; never waits."""
        ...

    def renew(self) -> None:
        """Number messages anew after a fault, on every rank; what is under way is ignored when it comes."""
        ...

    def close(self) -> None:
        """Give up messages under way; never waits for a peer."""
        ...


class _Message:
    """A label and a body over gloo, under way; `Leaving` and `Arriving` at once."""

    def __init__(self, owner: Peers, peer: int, label: Tensor, body: Tensor, works: list[dist.Work]) -> None:
        self._owner, self._peer, self._works = owner, peer, works
        self._label, self._body = label, body

    def label(self) -> bytes:
        self._await(1)
        return self._label.numpy().tobytes()

    def body(self) -> Tensor:
        self._await(0)
        return self._body

    def wait(self) -> None:
        self._await(0)

    def _await(self, left: int) -> None:
        while len(self._works) > left:
            self._owner.complete(self._works[0], self._peer)
            self._works.pop(0)
        if not self._works:
            self._owner.forget(self)


class Peers(Ranks):
    """Sends and receives between single ranks, any number under way.

    Label and body travel apart, under tags with the number of the message between the two and, for the body, its
    length. So a label is read even when its body is not the one that is waited for, and a body of another length is
    never taken (gloo itself would end the process). Ranks that disagree learn so from a label, at once.

    Arguments:
        timeout: s; see `Ranks`.

    When it fails: `LostPeer` for a rank that died, as soon as its connection closes, or that does not send within the
    timeout. No message can be sent after that, and every later call raises the same.

    >>> Peers()
    Traceback (most recent call last):
    ...
    ValueError: torch.distributed is not set up. Start the script with torchrun and call torch.distributed.\
init_process_group("gloo") first.
    """

    def __init__(self, *, timeout: float = 60.0) -> None:
        super().__init__(timeout)
        self._epoch = 0
        self._sent: defaultdict[int, int] = defaultdict(int)
        self._asked: defaultdict[int, int] = defaultdict(int)
        self._under_way: set[_Message] = set()
        self._abandoned: list[object] = []  # buffers that gloo may still read or write
        self._lost: LostPeer | None = None

    def send(self, peer: int, label: bytes, body: Tensor) -> _Message:
        head = torch.frombuffer(bytearray(label), dtype=torch.uint8)
        return self._start(dist.isend, peer, self._next(self._sent, peer), head, body.contiguous())

    def receive(self, peer: int, label: int, body: int) -> _Message:
        head, content = (torch.empty(length, dtype=torch.uint8) for length in (label, body))
        return self._start(dist.irecv, peer, self._next(self._asked, peer), head, content)

    def _start(self, start: _Start, peer: int, number: int, label: Tensor, body: Tensor) -> _Message:
        self._alive()
        works: list[dist.Work] = []
        message = _Message(self, peer, label, body, works)
        self._under_way.add(message)
        try:
            for tensor, tag in ((label, self._tag(number, None)), (body, self._tag(number, len(body)))):
                work = start(tensor, peer, group=self._group, tag=tag)
                assert work is not None
                works.append(work)
        except RuntimeError as error:
            raise self._lose(peer, error) from error
        return message

    def complete(self, work: dist.Work, peer: int) -> None:
        """Wait for one send or receive. `LostPeer` if it fails."""
        self._alive()
        try:
            work.wait(self._limit)
        except RuntimeError as error:
            raise self._lose(peer, error) from error

    def forget(self, message: _Message) -> None:
        """Let go of a message that is through."""
        self._under_way.discard(message)

    def excuse(self, peers: Sequence[int], label: bytes) -> None:
        head = torch.frombuffer(bytearray(label), dtype=torch.uint8)
        for peer in peers:
            try:
                tag = self._tag(self._next(self._sent, peer), None)
                self._abandoned.append((dist.isend(head, peer, group=self._group, tag=tag), head))
            except RuntimeError:  # that peer is the one that is gone
                continue

    def renew(self) -> None:
        self._alive()
        self._epoch += 1
        self._sent.clear()
        self._asked.clear()
        self._abandoned += self._under_way
        self._under_way.clear()

    def _alive(self) -> None:
        if self._lost is not None:
            raise LostPeer(f"an earlier fault ended this exchange: {self._lost}") from self._lost

    def _lose(self, peer: int, error: RuntimeError) -> LostPeer:
        first = str(error).partition("\n")[0]
        self._lost = LostPeer(
            f"rank {peer} did not answer within {self._timeout:g} s, or is gone ({first}). See its own error; start "
            "all ranks again."
        )
        return self._lost

    @staticmethod
    def _next(numbers: defaultdict[int, int], peer: int) -> int:
        numbers[peer] += 1
        return numbers[peer] - 1

    def _tag(self, number: int, length: int | None) -> int:
        """31 bits: epoch, number, and for a body its length; a label has none."""
        body = 0 if length is None else (1 << 15) | length % _LENGTHS
        return (self._epoch % _EPOCHS) << 25 | (number % _NUMBERS) << 16 | body
