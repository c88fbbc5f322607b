"""What members said of rows whose labels are still out."""

from __future__ import annotations

import secrets
import threading
from typing import Any

from torch import Tensor

__all__ = ["Awaited"]


class Awaited:
    """Members' logits `[M, B]` by ticket, of `most` rows at most beside the newest ones; the oldest go first.

    Tickets count on from a random number of 62 bits, so that one of another process is not taken for one of this. For
    several threads; `lock` may be held around several calls.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.forgotten = 0
        self.rows = 0
        self._kept: dict[int, Tensor] = {}
        self._next = secrets.randbits(62)
        self.lock = threading.RLock()

    def keep(self, each: Tensor) -> int:
        """The ticket of these."""
        with self.lock:
            ticket, self._next = self._next, self._next + 1
            self._kept[ticket] = each
            self.rows += each.shape[1]
            while self.rows > self.most and len(self._kept) > 1:
                self.forgotten += self.drop(next(iter(self._kept)))
            return ticket

    def get(self, ticket: int) -> Tensor | None:
        """What was said, where it is still known."""
        return self._kept.get(ticket)

    def drop(self, ticket: int) -> int:
        """Forget a ticket; how many rows it was of."""
        with self.lock:
            rows = self._kept.pop(ticket).shape[1]
            self.rows -= rows
            return rows

    def __getstate__(self) -> dict[str, Any]:
        with self.lock:
            return {**self.__dict__, "_kept": dict(self._kept), "lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=threading.RLock())
