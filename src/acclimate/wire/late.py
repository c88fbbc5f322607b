"""Latency around another transport, in real time and without privileges."""

from __future__ import annotations

import time
from dataclasses import replace

from torch import Tensor

from acclimate.core.config import between
from acclimate.wire.transport import Handle, Timing, Transport

__all__ = ["LateTransport"]


class _Late:
    """A message that counts as delivered some time after it came; a `Handle`."""

    def __init__(self, inner: Handle, latency: float) -> None:
        self._inner, self._latency = inner, latency

    def wait(self) -> list[Tensor]:
        packets = self._inner.wait()
        time.sleep(max(0.0, self.timing.delivered - time.monotonic()))
        return packets

    @property
    def timing(self) -> Timing:
        timing = self._inner.timing
        return replace(timing, delivered=timing.delivered + self._latency, passed=timing.passed + self._latency)


class LateTransport:
    """Every message arrives this much later, any number at once; bandwidth is the inner transport's own.

    For links whose bandwidth is real, as those of a `KernelNetwork` are, and which lack a latency.

    Arguments:
        inner: on the monotonic clock, such as `GlooTransport`.
        latency: b in s, 0 or more.

    Raises:
        ValueError: a latency out of range.
    """

    def __init__(self, inner: Transport, latency: float) -> None:
        between(0, 3600, latency=latency)
        self._inner, self._latency = inner, latency
        self.spreads = inner.spreads

    @property
    def rank(self) -> int:
        return self._inner.rank

    @property
    def size(self) -> int:
        return self._inner.size

    def now(self) -> float:
        return time.monotonic()

    def submit(self, packet: Tensor) -> _Late:
        return _Late(self._inner.submit(packet), self._latency)

    def share(self, vector: Tensor) -> None:
        self._inner.share(vector)

    def agree(self, digest: bytes, what: str) -> None:
        self._inner.agree(digest, what)

    def close(self) -> None:
        self._inner.close()
