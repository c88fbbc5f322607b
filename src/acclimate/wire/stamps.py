"""When a message will have arrived over an emulated link: told at its sender, kept to at its receiver."""

from __future__ import annotations

import struct
import time

from acclimate.links.clock import VirtualLink
from acclimate.links.trace import Trace
from acclimate.wire.faults import LostPeer
from acclimate.wire.transport import Timing

__all__ = ["SIZE", "SlowLink", "held", "written"]

_STAMP = struct.Struct("<d")

SIZE = _STAMP.size
"""Bytes of a stamp."""


class SlowLink:
    """A virtual link on the monotonic clock, which all processes of one machine share; it begins when it is built.

    Arguments:
        trace: bandwidth over time, in bit/s.
        latency: in s.
    """

    def __init__(self, trace: Trace, latency: float) -> None:
        self._link, self._origin = VirtualLink(trace, latency), time.monotonic()

    def send(self, bits: int) -> Timing:
        """How a message of so many bits that is handed over now will have gone."""
        now = time.monotonic()
        arrival = self._origin + self._link.send(now - self._origin, bits)
        return Timing(now, bits, arrival, self._link.spread, arrival)


def written(arrival: float) -> bytes:
    """The stamp of an arrival.

    >>> len(written(1.5)) == SIZE
    True
    """
    return _STAMP.pack(arrival)


def held(stamps: list[bytes], timeout: float, smaller: str) -> float:
    """Sleep until the latest of these stamps, and return it.

    Raises:
        LostPeer: that is more than `timeout` s away; after so long. `smaller` is what to make smaller.
    """
    arrival: float = max(_STAMP.unpack(each)[0] for each in stamps)
    left = arrival - time.monotonic()
    time.sleep(max(0.0, min(left, timeout)))
    if left > timeout:
        raise LostPeer(
            f"a message would take {left:.1f} s more, beyond the timeout of {timeout:g} s: its link is down or too "
            f"slow. Start again from a checkpoint, or all ranks anew, with a longer timeout or a smaller {smaller}."
        )
    return arrival
