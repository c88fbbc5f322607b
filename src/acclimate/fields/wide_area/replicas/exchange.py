"""Messages under way, in order, and what their times tell about the network."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.fields.wide_area.network.estimator import Estimator
from acclimate.fields.wide_area.wire.packet import Packet, pack
from acclimate.wire.transport import Delivered, Handle, Timing, Transport

__all__ = ["Exchange", "Message"]

_LATENCY_PROBES, _LATENCY_BYTES = 5, 64
_BANDWIDTH_PROBES, _BANDWIDTH_BYTES = 2, 1 << 18


@dataclass(frozen=True, eq=False, slots=True)
class Message:
    """One that was submitted: the iteration it is of, None for a probe, and its handle."""

    number: int | None
    handle: Handle


class Exchange:
    """Sends packets over a transport and takes them in again in the same order [S: the queue Q of 2.4].

    Probes, which only measure, queue between the packets: five of 64 bytes and, where the transport tells no spreads,
    two of at most 256 KiB, back to back.

    Arguments:
        transport: to all ranks.
        estimator: told of every message that comes in.

    Attributes:
        waited: s that `receive` has stood still, ever.
        sent_bits: of packets and probes, ever.
    """

    def __init__(self, transport: Transport, estimator: Estimator) -> None:
        self.transport, self.estimator = transport, estimator
        self.waited = 0.0
        self.sent_bits = 0
        self._queue: deque[Message] = deque()
        self._probed = 0

    @property
    def numbers(self) -> list[int]:
        """Iterations whose messages are under way, the oldest first."""
        return [message.number for message in self._queue if message.number is not None]

    def send(self, packet: Packet) -> None:
        self._submit(packet.number, pack(packet))

    def _submit(self, number: int | None, raw: Tensor) -> None:
        self._queue.append(Message(number, self.transport.submit(raw)))
        self.sent_bits += 8 * len(raw)

    def probe(self, dense_bytes: int, iteration: int = 0, every: int = 0) -> None:
        """Send probes, unless some were sent within `every` iterations; at most as long as a dense message."""
        if every and iteration - self._probed < every:
            return
        self._probed = iteration
        for _ in range(_LATENCY_PROBES):
            self._submit(None, torch.zeros(_LATENCY_BYTES, dtype=torch.uint8))
        length = max(2 * _LATENCY_BYTES, min(dense_bytes, _BANDWIDTH_BYTES))
        for _ in range(0 if self.transport.spreads else _BANDWIDTH_PROBES):
            self._submit(None, torch.zeros(length, dtype=torch.uint8))

    def receive(self) -> list[Tensor]:
        """The packets of the oldest message, which stays the oldest until `done`: a fault leaves all as it was."""
        while self._queue[0].number is None:
            self._wait(self._queue[0])
            self._queue.popleft()
        return self._wait(self._queue[0])

    def done(self) -> None:
        """Forget the oldest message."""
        self._queue.popleft()

    def _wait(self, message: Message) -> list[Tensor]:
        before = self.transport.now()
        packets = message.handle.wait()
        self.waited += self.transport.now() - before
        if not isinstance(message.handle, Delivered):
            timing = message.handle.timing
            came = timing.delivered if math.isnan(timing.passed) else timing.passed
            self.estimator.observe(timing.submitted, timing.bits, came, timing.spread, timing.copies)
        return packets

    def content(self) -> list[tuple[int, list[Tensor]]]:
        """Number and packets of all messages under way, which are waited for; probes are left out."""
        return [(each.number, each.handle.wait()) for each in self._queue if each.number is not None]

    def refill(self, content: Sequence[tuple[int, list[Tensor]]]) -> None:
        """Put messages from a checkpoint in place of those under way."""
        here = Timing(0.0, 0, 0.0)
        self._queue = deque(Message(number, Delivered(here, lambda kept=packets: kept)) for number, packets in content)
