"""A thread that receives messages in their order, so that the moment of each arrival is known."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable

from torch import Tensor

from acclimate.wire.faults import LostPeer
from acclimate.wire.transport import Timing

__all__ = ["Courier", "Letter"]

_PATIENCE = 1.0


class Letter:
    """A message that a courier receives; a `Handle`.

    Arguments:
        submitted: s on the monotonic clock.
        bits: of the own packet.
        receive: blocks until the packets of all ranks are here, and returns them.
        copies: for `Timing`.

    Attributes:
        spread: s, for `Timing`; set by `receive` where it can tell.

    >>> courier = Courier()
    >>> letter = courier.take(Letter(0.0, 8, lambda: []))
    >>> letter.wait(), courier.close()
    ([], None)
    """

    def __init__(self, submitted: float, bits: int, receive: Callable[[], list[Tensor]], copies: float = 1.0) -> None:
        self._submitted, self._bits, self._receive, self._copies = submitted, bits, receive, copies
        self.spread = math.nan
        self._packets: list[Tensor] = []
        self._delivered = submitted
        self._fault: BaseException | None = None
        self._done = threading.Event()

    def wait(self) -> list[Tensor]:
        self._done.wait()
        if self._fault is not None:
            raise LostPeer(str(self._fault)) from self._fault
        return self._packets

    @property
    def timing(self) -> Timing:
        return Timing(self._submitted, self._bits, self._delivered, self.spread, copies=self._copies)

    def fetch(self) -> BaseException | None:
        """Receive, in the courier's thread; what went wrong, if anything did."""
        try:
            self._packets = self._receive()
        except RuntimeError as error:
            self.fail(error)
        self._delivered = time.monotonic()
        self._done.set()
        return self._fault

    def fail(self, fault: BaseException) -> None:
        """Let `wait` raise."""
        self._fault = fault
        self._done.set()


class Courier:
    """Receives letters one after the other; once one has failed, all later ones fail with it."""

    def __init__(self) -> None:
        self._letters: queue.SimpleQueue[Letter | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def take(self, letter: Letter) -> Letter:
        self._letters.put(letter)
        return letter

    def _run(self) -> None:
        fault: BaseException | None = None
        while (letter := self._letters.get()) is not None:
            if fault is None:
                fault = letter.fetch()
            else:
                letter.fail(fault)

    def stop(self) -> None:
        """Let the thread end after the letters it has."""
        self._letters.put(None)

    def close(self) -> None:
        """The same; a second at most is waited for it."""
        self.stop()
        self._thread.join(_PATIENCE)
