"""What transports around another one leave to it."""

from __future__ import annotations

import time

from torch import Tensor

from acclimate.wire.transport import Transport

__all__ = ["Around"]


class Around:
    """All of a transport but `submit` and `spreads`, as the inner one has it, on the monotonic clock.

    Arguments:
        inner: between processes of one machine, or on the monotonic clock.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    @property
    def rank(self) -> int:
        return self._inner.rank

    @property
    def size(self) -> int:
        return self._inner.size

    def now(self) -> float:
        return time.monotonic()

    def share(self, vector: Tensor) -> None:
        self._inner.share(vector)

    def agree(self, digest: bytes, what: str) -> None:
        self._inner.agree(digest, what)

    def close(self) -> None:
        self._inner.close()
