"""The contract of every transport: submit a packet, wait for one of every rank, know how long it took."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

__all__ = ["Delivered", "Handle", "Timing", "Transport"]


@dataclass(frozen=True, slots=True)
class Timing:
    """When a message went and came, on the clock of its transport.

    Attributes:
        submitted: s.
        bits: of the own packet.
        delivered: s, when the packets of all ranks were here.
        spread: s between the first and the last bit of the own packet, or of that of the rank before; NaN where the
            transport cannot tell.
        passed: s, when the own packet had come everywhere, whatever the others' did: with it a link is measured without
            the wait for slower machines; NaN where the transport cannot tell.
        copies: how many spreads one after the other a packet takes of its sender's link.

    >>> Timing(1.0, 800, 1.5).delivered
    1.5
    """

    submitted: float
    bits: int
    delivered: float
    spread: float = math.nan
    passed: float = math.nan
    copies: float = 1.0


class Handle(Protocol):
    """One message under way."""

    def wait(self) -> list[Tensor]:
        """The packets of all ranks in their order, uint8; may be called again.

        Raises:
            LostPeer: they did not come within the timeout, or a rank is gone.
        """
        ...

    @property
    def timing(self) -> Timing:
        """Known after `wait`."""
        ...


class Transport(Protocol):
    """Gathers one packet of every rank, message by message, in the order in which they were submitted.

    All ranks submit the same messages in the same order, of equal lengths. `submit` returns at once; several messages
    may be under way.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def spreads(self) -> bool:
        """Whether timings tell the spread of packets of more than 128 bytes, so that no probes are needed."""
        ...

    def now(self) -> float:
        """Seconds on the clock that timings are on; only differences mean something."""
        ...

    def submit(self, packet: Tensor) -> Handle:
        """Send uint8 `[...]` to all ranks."""
        ...

    def share(self, vector: Tensor) -> None:
        """Fill a vector on every rank with that of rank 0; all ranks call it, with the same shape."""
        ...

    def agree(self, digest: bytes, what: str) -> None:
        """Return if all ranks give the same digest.

        Raises:
            Disagreement: they do not; on every rank, but in a simulation only on the first that differs.
        """
        ...

    def close(self) -> None:
        """Give up threads and messages under way; never waits for a peer."""
        ...


class Delivered:
    """A message that is here already, such as one from a checkpoint; `receive` is called on the first wait.

    >>> Delivered(Timing(0.0, 8, 0.0), lambda: []).wait()
    []
    """

    def __init__(self, timing: Timing, receive: Callable[[], list[Tensor]]) -> None:
        self._timing, self._receive = timing, receive

    def wait(self) -> list[Tensor]:
        return self._receive()

    @property
    def timing(self) -> Timing:
        return self._timing
