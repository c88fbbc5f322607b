"""The contract of messages between single ranks: a label that comes first, and a body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

__all__ = ["Arriving", "Leaving", "Mail"]


class Leaving(Protocol):
    """A message under way from this rank."""

    def wait(self) -> None:
        """Return when its receiver has taken it. `LostPeer` if it does not within the timeout."""
        ...


class Arriving(Protocol):
    """A message under way to this rank; every method may be called again."""

    def label(self) -> bytes:
        """What its sender put on it. `LostPeer` if it does not come within the timeout."""
        ...

    def ask(self, length: int) -> None:
        """Let the body come, now that the label has told how long it is; returns at once."""
        ...

    def body(self) -> Tensor:
        """uint8 `[length]` on the CPU, once asked for. `LostPeer` as for `label`."""
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

    def receive(self, peer: int, label: int, early: int | None = None) -> Arriving:
        """Ask for the label, of so many bytes, of the next message of a peer; returns at once.

        With `early`, the body is asked for as well, of a length that both ends are known to agree on.
        """
        ...

    def excuse(self, peers: Sequence[int], label: bytes) -> None:
        """Send a label without a body as the next message; never waits."""
        ...

    def renew(self) -> None:
        """Number messages anew, on every rank, once each has read all labels, and all bodies, that were sent to it."""
        ...

    def close(self) -> None:
        """Give up messages under way; never waits for a peer."""
        ...
