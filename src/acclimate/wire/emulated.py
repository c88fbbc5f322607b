"""A slow, changing link around another transport, in real time and without privileges."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from acclimate.core.config import positive
from acclimate.links.trace import Trace
from acclimate.wire.around import Around
from acclimate.wire.stamps import SIZE, SlowLink, held, written
from acclimate.wire.transport import Handle, Timing, Transport

__all__ = ["EmulatedTransport"]


class _Held:
    """A message that is here but counts as delivered later; a `Handle`."""

    def __init__(self, inner: Handle, timing: Timing, timeout: float) -> None:
        self._inner, self._timing, self._timeout = inner, timing, timeout
        self._packets: list[Tensor] | None = None

    def wait(self) -> list[Tensor]:
        if self._packets is None:
            stamped = self._inner.wait()
            arrival = held([each[-SIZE:].numpy().tobytes() for each in stamped], self._timeout, "ratio")
            self._timing = replace(self._timing, delivered=arrival)
            self._packets = [each[:-SIZE] for each in stamped]
        return self._packets

    @property
    def timing(self) -> Timing:
        return self._timing


class EmulatedTransport(Around):
    """Delays what another transport brings, as if it had come over a link of this trace and latency [S: 10.2].

    The sender stamps each packet with `deliver_at = finish(max(now, link free), bits) + b`, on the monotonic clock that
    all processes of one machine share; the inner transport moves it at once, and `wait` sleeps until the latest stamp.
    Latency is pipelined perfectly. The trace begins when the transport is built.

    Arguments:
        inner: such as `GlooTransport`, between processes of one machine.
        trace: bandwidth of this rank's link over time, in bit/s.
        latency: b in s.
        timeout: s, the longest a message may keep a rank waiting.

    When it fails: a message that takes longer raises `LostPeer`, on all ranks, since all see all stamps. Clocks of
    different machines differ, and stamps between them mean nothing.
    """

    spreads = True

    def __init__(self, inner: Transport, trace: Trace, latency: float, *, timeout: float = 60.0) -> None:
        positive(timeout=timeout)
        super().__init__(inner)
        self._link, self._timeout = SlowLink(trace, latency), timeout

    def submit(self, packet: Tensor) -> _Held:
        timing = self._link.send(8 * len(packet))
        stamp = torch.frombuffer(bytearray(written(timing.delivered)), dtype=torch.uint8)
        stamped = torch.cat((packet, stamp))
        return _Held(self._inner.submit(stamped), timing, self._timeout)
