"""Tags of messages between single ranks, and the slow link around them; jobs of real ranks test the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from acclimate.links.traces import constant
from acclimate.wire.emulated_peers import EmulatedPeers
from acclimate.wire.faults import LostPeer
from acclimate.wire.peers import Peers


class Loop:
    """Mail to oneself: what was sent, in order."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Tensor]] = []

    def send(self, peer: int, label: bytes, body: Tensor) -> Loop:
        self.sent.append((label, body))
        return self

    def wait(self) -> None: ...

    def receive(self, peer: int, label: int, early: int | None = None) -> Taken:
        found = self.sent.pop(0)
        assert len(found[0]) == label and early in (None, len(found[1]))
        return Taken(*found)

    def excuse(self, peers: Sequence[int], label: bytes) -> None:
        self.sent += [(label, torch.empty(0, dtype=torch.uint8)) for _ in peers]

    def renew(self) -> None: ...

    def close(self) -> None: ...


class Taken:
    def __init__(self, label: bytes, body: Tensor) -> None:
        self._label, self._body = label, body

    def label(self) -> bytes:
        return self._label

    def ask(self, length: int) -> None:
        assert len(self._body) == length

    def body(self) -> Tensor:
        return self._body


def test_messages_queue_for_a_link_and_travel_for_its_latency() -> None:
    mail = EmulatedPeers(Loop(), constant(8 * 1000.0), 0.1)
    begun = time.monotonic()
    for number in range(3):
        mail.send(0, b"abcd", torch.full((96,), number, dtype=torch.uint8))
    assert time.monotonic() - begun < 0.09
    for number in range(3):
        arriving = mail.receive(0, 4, 96)
        assert arriving.label() == b"abcd"
        assert time.monotonic() - begun >= 0.1 * (number + 1) + 0.1
        assert arriving.body().tolist() == [number] * 96
    assert time.monotonic() - begun < 0.8


def test_a_link_that_is_too_slow_loses_its_peer() -> None:
    mail = EmulatedPeers(Loop(), constant(8.0), timeout=0.05)
    mail.send(0, b"abcd", torch.zeros(96, dtype=torch.uint8))
    with pytest.raises(LostPeer, match=r"beyond the timeout of 0\.05 s"):
        mail.receive(0, 4, 96).label()


def test_an_excuse_takes_the_time_of_its_label() -> None:
    mail = EmulatedPeers(Loop(), constant(8 * 100.0))
    begun = time.monotonic()
    mail.excuse([0], b"0123456789")
    assert mail.receive(0, 10).label() == b"0123456789"
    assert 0.1 <= time.monotonic() - begun < 0.6


def test_tags_tell_messages_labels_and_lengths_apart() -> None:
    peers = object.__new__(Peers)
    tags: set[int] = set()
    for epoch in (0, 1, 63):
        peers._epoch = epoch  # pyright: ignore[reportPrivateUsage]
        for number in (0, 1, 511):
            for length in (None, 0, 1, 1000, 32748):
                tags.add(peers._tag(number, length))  # pyright: ignore[reportPrivateUsage]
    assert len(tags) == 3 * 3 * 5
    assert all(0 <= tag < 1 << 31 for tag in tags)
