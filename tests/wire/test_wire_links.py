"""Simulated and emulated links against the cycle time of section 4.2 of the specification."""

from __future__ import annotations

import itertools
import time

import pytest
import torch

from acclimate.links.traces import constant, step_drop
from acclimate.wire.emulated import EmulatedTransport
from acclimate.wire.faults import Disagreement, LostPeer
from acclimate.wire.late import LateTransport
from acclimate.wire.simulated import SimulatedTransport, world
from acclimate.wire.transport import Delivered, Handle, Timing, Transport

BYTES = 125


def iterate(transports: list[SimulatedTransport], compute: float, staleness: int, steps: int) -> list[float]:
    """When each iteration of the slowest worker ends: wait for message s - 1 - tau, compute, send."""
    handles: list[list[Handle]] = [[] for _ in transports]
    ends: list[float] = []
    for step in range(steps):
        for worker, sent in zip(transports, handles, strict=True):
            if step > staleness:
                assert len(sent[step - 1 - staleness].wait()) == len(transports)
            worker.compute(compute)
            sent.append(worker.submit(torch.zeros(BYTES, dtype=torch.uint8)))
        ends.append(max(worker.now() for worker in transports))
    return ends


@pytest.mark.parametrize(
    ("sending", "staleness", "expected"),
    [(0.05, 0, 0.35), (0.05, 1, 0.175), (0.05, 2, 0.35 / 3), (0.05, 3, 0.1), (0.3, 3, 0.3)],
)
@pytest.mark.parametrize("workers", [1, 3])
def test_the_period_is_the_cycle_time(sending: float, staleness: int, expected: float, workers: int) -> None:
    ends = iterate(world(workers, [(constant(8 * BYTES / sending), 0.2)]), 0.1, staleness, 61)
    assert (ends[60] - ends[48]) / 12 == pytest.approx(expected, rel=1e-9)


def test_the_slowest_link_sets_the_pace() -> None:
    fast, slow = (constant(8 * BYTES / 0.01), 0.0), (constant(8 * BYTES / 0.25), 0.1)
    ends = iterate(world(2, [fast, slow]), 0.1, 2, 61)
    assert (ends[60] - ends[48]) / 12 == pytest.approx(0.25, rel=1e-9)


def test_copies_take_their_sender_s_bandwidth() -> None:
    ends = iterate(world(4, [(constant(8 * BYTES / 0.1), 0.05)], topology="gather"), 0.1, 8, 61)
    assert (ends[60] - ends[48]) / 12 == pytest.approx(0.3, rel=1e-9)


def test_waiting_is_counted_and_a_drop_only_stalls() -> None:
    (worker,) = world(1, [(step_drop(8 * BYTES / 0.01, at=5.0, share=0.001, seconds=10.0), 0.01)])
    ends = iterate([worker], 0.1, 1, 200)
    gaps = [after - before for before, after in itertools.pairwise(ends)]
    assert 9.0 < max(gaps) < 11.0
    assert worker.stalled == pytest.approx(ends[-1] - 200 * 0.1, abs=1e-9)


def test_packets_come_in_the_order_of_ranks() -> None:
    workers = world(3, [(constant(1e6), 0.1)])
    handles = [worker.submit(torch.full((4,), worker.rank, dtype=torch.uint8)) for worker in reversed(workers)]
    assert [int(each[0]) for each in handles[0].wait()] == [0, 1, 2]


def test_a_turn_too_early_is_explained() -> None:
    first, _ = world(2, [(constant(1e6), 0.1)])
    handle = first.submit(torch.zeros(4, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match=r"ranks \[1\] have not sent"):
        handle.wait()


def test_virtual_ranks_compare_and_share() -> None:
    first, second = world(2, [(constant(1e6), 0.1)])
    mine, other = torch.ones(2), torch.zeros(2)
    with pytest.raises(RuntimeError, match="rank 0, which has given none"):
        second.share(other)
    first.share(mine)
    second.share(other)
    assert other.tolist() == [1.0, 1.0]
    first.agree(b"a", "colour")
    with pytest.raises(Disagreement, match="rank 1 differs from the first in colour"):
        second.agree(b"b", "colour")


@pytest.mark.parametrize("links", [[], [(constant(1.0), 0.0)] * 2])
def test_links_for_some_workers(links: list[tuple[object, float]]) -> None:
    with pytest.raises(ValueError, match="for 3 workers"):
        world(3, links)  # pyright: ignore[reportArgumentType]


class Loop:
    """A transport of one rank that delivers at once."""

    rank, size = 0, 1

    def now(self) -> float:
        return time.monotonic()

    def submit(self, packet: torch.Tensor) -> Handle:
        now = time.monotonic()
        return Delivered(Timing(now, 8 * len(packet), now), lambda: [packet])

    def share(self, vector: torch.Tensor) -> None: ...

    def agree(self, digest: bytes, what: str) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("latency", "sending", "staleness"), [(0.1, 0.02, 0), (0.1, 0.02, 1), (0.1, 0.02, 3), (0.02, 0.09, 2)]
)
def test_real_time_follows_the_recurrence(latency: float, sending: float, staleness: int) -> None:
    """Section 4.1 with the seconds that each iteration's work really took, so that a busy machine does not matter."""
    transport: Transport = EmulatedTransport(Loop(), constant(8 * BYTES / sending), latency)
    sent: list[Handle] = []
    late: list[float] = []
    ended, free, arrivals = time.monotonic(), 0.0, list[float]()
    for step in range(16):
        ready = ended
        if step > staleness:
            assert len(sent[step - 1 - staleness].wait()[0]) == BYTES
            ready = max(ended, arrivals[step - 1 - staleness])
            late.append(time.monotonic() - ready)
        time.sleep(0.05)
        ended = time.monotonic()
        sent.append(transport.submit(torch.zeros(BYTES, dtype=torch.uint8)))
        free = max(ended, free) + sending
        arrivals.append(free + latency)
    assert min(late) > -2e-3
    assert sorted(late)[3] < 1e-2
    timing = sent[0].timing
    assert timing.bits == 8 * BYTES
    assert timing.delivered - timing.submitted == pytest.approx(sending + latency, abs=1e-6)
    assert timing.passed == timing.delivered and timing.spread == pytest.approx(sending, abs=1e-6)


def test_a_link_that_is_down_too_long() -> None:
    transport = EmulatedTransport(Loop(), step_drop(1e6, at=1e-6, share=1e-5), 0.0, timeout=0.1)
    handle = transport.submit(torch.zeros(BYTES, dtype=torch.uint8))
    with pytest.raises(LostPeer, match=r"beyond the timeout of 0.1 s"):
        handle.wait()


def test_a_simulation_forgets_messages_that_all_have_fetched() -> None:
    workers = world(3, [(constant(1e6), 0.1)])
    for _ in range(5):
        handles = [worker.submit(torch.zeros(8, dtype=torch.uint8)) for worker in workers]
        for handle in handles:
            assert len(handle.wait()) == 3 and len(handle.wait()) == 3
    assert not workers[0]._common.messages


def test_a_packet_tells_when_it_passed_whatever_the_others_did() -> None:
    first, second = world(2, [(constant(100.0), 0.5), (constant(50.0), 0.25)])
    second.compute(3.0)
    handles = [each.submit(torch.zeros(100, dtype=torch.uint8)) for each in (first, second)]
    for handle in handles:
        handle.wait()
    assert handles[0].timing == Timing(0.0, 800, 19.25, 8.0, 8.5)
    assert handles[1].timing == Timing(3.0, 800, 19.25, 16.0, 19.25)


class _Here:
    """A transport of one rank whose messages come at once, after a spread of 20 ms."""

    rank, size, spreads = 0, 1, True

    def submit(self, packet: torch.Tensor) -> Handle:
        now = time.monotonic()
        return Delivered(Timing(now, 8 * len(packet), now + 0.02, 0.02), lambda: [packet])


@pytest.mark.parametrize("latency", [0.0, 0.15])
def test_latency_is_added_to_every_message_and_holds_up_none(latency: float) -> None:
    late = LateTransport(_Here(), latency)  # type: ignore[arg-type]
    begun = time.monotonic()
    packets = [torch.full((BYTES,), number, dtype=torch.uint8) for number in range(20)]
    letters = [late.submit(packet) for packet in packets]
    assert time.monotonic() - begun < 0.1
    for letter, packet in zip(letters, packets, strict=True):
        (came,) = letter.wait()
        assert torch.equal(came, packet) and time.monotonic() >= letter.timing.delivered
        assert letter.timing.delivered == pytest.approx(letter.timing.submitted + 0.02 + latency)
        assert letter.timing.spread == 0.02 and letter.timing.bits == 8 * BYTES and late.spreads
    assert time.monotonic() - begun < 0.02 + latency + 1.0  # one after the other would take 3 s
    with pytest.raises(ValueError, match="latency"):
        LateTransport(_Here(), -0.1)  # type: ignore[arg-type]
