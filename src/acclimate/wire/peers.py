"""Messages between two ranks over gloo: a label that comes first, and a body whose length both know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
import torch.distributed as dist
from torch import Tensor

from acclimate.wire.faults import LostPeer
from acclimate.wire.mail import Arriving, Leaving, Mail
from acclimate.wire.ranks import Ranks

__all__ = ["Arriving", "Leaving", "Mail", "Peers"]

_Start = Callable[..., "dist.Work | None"]

_LABEL_EPOCHS, _LABEL_NUMBERS = 1 << 18, 1 << 12
_EPOCHS, _NUMBERS, _LENGTHS = 1 << 6, 1 << 9, 32749


class _Message:
    """A label and a body over gloo, under way."""

    def __init__(self, owner: Peers, peer: int, number: int, label: Tensor) -> None:
        self.owner, self.peer, self.number = owner, peer, number
        self.content = label, torch.empty(0, dtype=torch.uint8)
        self.works: list[dist.Work] = []

    def until(self, left: int) -> None:
        """Wait for all transfers but so many."""
        while len(self.works) > left:
            self.owner.complete(self.works[0], self.peer)
            self.works.pop(0)
        if not self.works:
            self.owner.forget(self)


class _Leaving(_Message):
    """A `Leaving`."""

    def wait(self) -> None:
        self.until(0)


class _Arriving(_Message):
    """An `Arriving`; `asked` is whether the body was."""

    asked = False

    def label(self) -> bytes:
        self.until(int(self.asked))
        return self.content[0].numpy().tobytes()

    def ask(self, length: int) -> None:
        if not self.asked or len(self.content[1]) != length:
            self.owner.ask(self, length)

    def body(self) -> Tensor:
        assert self.asked
        self.until(0)
        return self.content[1]


class Peers(Ranks):
    """Sends and receives between single ranks, any number under way.

    Label and body travel apart, and a body is asked for when its label has told its length, unless the caller knows
    it: gloo ends a process that is sent more than it asked for. So ranks that disagree learn so from a label, at once.
    Tags hold the number of the message between the two, the number of renewals and, for a body, its length as well, so
    that a body of another length is not taken even where it was asked for early.

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

    def send(self, peer: int, label: bytes, body: Tensor) -> _Leaving:
        message = _Leaving(self, peer, self._next(self._sent, peer), _bytes(label))
        self._start(dist.isend, message, message.content[0], None)
        message.content = message.content[0], body.contiguous()
        self._start(dist.isend, message, message.content[1], len(body))
        return message

    def receive(self, peer: int, label: int, early: int | None = None) -> _Arriving:
        message = _Arriving(self, peer, self._next(self._asked, peer), torch.empty(label, dtype=torch.uint8))
        self._start(dist.irecv, message, message.content[0], None)
        if early is not None:
            message.ask(early)
        return message

    def ask(self, message: _Arriving, length: int) -> None:
        """Begin to receive a body; one of another length that was asked for before never comes."""
        if message.asked:
            self._abandoned.append((*message.works, *message.content))
            message.works.clear()
        message.asked = True
        message.content = message.content[0], torch.empty(length, dtype=torch.uint8)
        self._start(dist.irecv, message, message.content[1], length)

    def _start(self, start: _Start, message: _Message, tensor: Tensor, length: int | None) -> None:
        self._alive()
        try:
            self._begin(start, message, tensor, length)
        except RuntimeError as error:
            raise self._lose(message.peer, error) from error

    def _begin(self, start: _Start, message: _Message, tensor: Tensor, length: int | None) -> None:
        self._under_way.add(message)
        work = start(tensor, message.peer, group=self._group, tag=self._tag(message.number, length))
        assert work is not None
        message.works.append(work)

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
        for peer in peers:
            message = _Leaving(self, peer, self._next(self._sent, peer), _bytes(label))
            with suppress(RuntimeError):  # that peer is the one that is gone
                self._begin(dist.isend, message, message.content[0], None)

    def renew(self) -> None:
        self._alive()
        for message in list(self._under_way):
            if isinstance(message, _Leaving):
                message.wait()
        self._abandoned += self._under_way
        self._under_way.clear()
        self._epoch += 1
        self._sent.clear()
        self._asked.clear()

    def close(self) -> None:
        self._lost = self._lost or LostPeer("it was closed.")
        super().close()

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
        """31 bits: renewals and number, for a body its length besides, and which of the two it is."""
        if length is None:
            return (self._epoch % _LABEL_EPOCHS) << 12 | number % _LABEL_NUMBERS
        return 1 << 30 | (self._epoch % _EPOCHS) << 24 | (number % _NUMBERS) << 15 | length % _LENGTHS


def _bytes(label: bytes) -> Tensor:
    return torch.frombuffer(bytearray(label), dtype=torch.uint8)
