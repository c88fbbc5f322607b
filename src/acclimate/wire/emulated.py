"""A slow, changing link around another transport, in real time and without privileges."""

from __future__ import annotations

import struct
import time
from dataclasses import replace

import torch
from torch import Tensor

from acclimate.core.config import positive
from acclimate.links.clock import VirtualLink
from acclimate.links.trace import Trace
from acclimate.wire.faults import LostPeer
from acclimate.wire.transport import Handle, Timing, Transport

__all__ = ["EmulatedTransport"]

_STAMP = struct.Struct("<d")


class _Held:
    """A message that is here but counts as delivered later; a `Handle`."""

    def __init__(self, inner: Handle, timing: Timing, timeout: float) -> None:
        self._inner, self._timing, self._timeout = inner, timing, timeout
        self._packets: list[Tensor] | None = None

    def wait(self) -> list[Tensor]:
        if self._packets is None:
            stamped = self._inner.wait()
            stamps = [_STAMP.unpack(each[-_STAMP.size :].numpy().tobytes())[0] for each in stamped]
            self._timing = replace(self._timing, delivered=max(stamps))
            left = self._timing.delivered - time.monotonic()
            time.sleep(max(0.0, min(left, self._timeout)))
            if left > self._timeout:
                raise LostPeer(
                    f"a message would take {left:.1f} s more, beyond the timeout of {self._timeout:g} s: its link is "
                    "down or too slow. Start again from a checkpoint, with a longer timeout or a smaller ratio."
                )
            self._packets = [each[: -_STAMP.size] for each in stamped]
        return self._packets

    @property
    def timing(self) -> Timing:
        return self._timing


class EmulatedTransport:
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
        self._inner, self._link, self._timeout = inner, VirtualLink(trace, latency), timeout
        self._origin = time.monotonic()

    @property
    def rank(self) -> int:
        return self._inner.rank

    @property
    def size(self) -> int:
        return self._inner.size

    def now(self) -> float:
        return time.monotonic()

    def submit(self, packet: Tensor) -> _Held:
        at, bits = time.monotonic() - self._origin, 8 * len(packet)
        arrival = self._origin + self._link.send(at, bits)
        stamped = torch.cat((packet, torch.frombuffer(bytearray(_STAMP.pack(arrival)), dtype=torch.uint8)))
        timing = Timing(self._origin + at, bits, arrival, self._link.spread, arrival)
        return _Held(self._inner.submit(stamped), timing, self._timeout)

    def share(self, vector: Tensor) -> None:
        self._inner.share(vector)

    def agree(self, digest: bytes, what: str) -> None:
        self._inner.agree(digest, what)

    def close(self) -> None:
        self._inner.close()
