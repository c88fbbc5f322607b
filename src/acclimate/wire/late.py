"""Latency around another transport, in real time and without privileges."""

from __future__ import annotations

import time
from dataclasses import replace

from torch import Tensor

from acclimate.core.config import between
from acclimate.wire.around import Around
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


class LateTransport(Around):
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
        super().__init__(inner)
        self._latency = latency
        self.spreads = inner.spreads

    def submit(self, packet: Tensor) -> _Late:
        return _Late(self._inner.submit(packet), self._latency)
