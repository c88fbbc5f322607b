"""A slow, changing link around messages between single ranks, in real time and without privileges."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from acclimate.core.config import positive
from acclimate.links.trace import Trace
from acclimate.wire.mail import Arriving, Leaving, Mail
from acclimate.wire.stamps import SIZE, SlowLink, held, written

__all__ = ["EmulatedPeers"]


class _Held:
    """A message that is here but counts as delivered later; an `Arriving`."""

    def __init__(self, inner: Arriving, timeout: float) -> None:
        self._inner, self._timeout = inner, timeout

    def label(self) -> bytes:
        stamped = self._inner.label()
        held([stamped[-SIZE:]], self._timeout, "codec")
        return stamped[:-SIZE]

    def ask(self, length: int) -> None:
        self._inner.ask(length)

    def body(self) -> Tensor:
        self.label()
        return self._inner.body()


class EmulatedPeers:
    """Delays what other mail brings, as if each rank sent over one link of this trace and latency [S: 8.3].

    As in `EmulatedTransport`, the sender stamps each message with when it will have arrived, on the monotonic clock
    that all processes of one machine share. Messages of a rank queue for its link whomever they go to; latency is
    pipelined. The 8 bytes of a stamp do not count. The trace begins when this is built.

    Arguments:
        inner: such as `Peers`, between processes of one machine.
        trace: bandwidth of this rank's link over time, in bit/s.
        latency: in s.
        timeout: s, the longest a message may keep a rank waiting; longer ones raise `LostPeer`.
    """

    def __init__(self, inner: Mail, trace: Trace, latency: float = 0.0, *, timeout: float = 60.0) -> None:
        positive(timeout=timeout)
        self._inner, self._link, self._timeout = inner, SlowLink(trace, latency), timeout

    @property
    def rank(self) -> int:
        return self._inner.rank

    @property
    def size(self) -> int:
        return self._inner.size

    def _stamped(self, label: bytes, size: int) -> bytes:
        return label + written(self._link.send(8 * size).delivered)

    def send(self, peer: int, label: bytes, body: Tensor) -> Leaving:
        return self._inner.send(peer, self._stamped(label, len(label) + len(body)), body)

    def receive(self, peer: int, label: int, early: int | None = None) -> _Held:
        return _Held(self._inner.receive(peer, label + SIZE, early), self._timeout)

    def excuse(self, peers: Sequence[int], label: bytes) -> None:
        self._inner.excuse(peers, self._stamped(label, len(label)))

    def renew(self) -> None:
        self._inner.renew()

    def close(self) -> None:
        self._inner.close()
