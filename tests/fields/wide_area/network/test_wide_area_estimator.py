"""The estimator on FIFO links whose bandwidth and latency are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.fields.wide_area.network.estimator import PROBE_BITS, Estimator

Message = tuple[float, float, float]
EVERY = 20


def open_loop(a: float, b: float, load: float, count: int, seed: int, jitter: float = 0.0) -> Iterator[Message]:
    """Messages of random sizes at random times on a FIFO link; load is the share of its time that it is busy."""
    generator = np.random.default_rng(seed)
    at = free = 0.0
    for _ in range(count):
        at += generator.uniform(0, 2) * 100 / (a * load)
        bits = generator.uniform(40, 160)
        free = max(at, free) + bits / a * generator.uniform(1 - jitter, 1 + jitter)
        yield at, bits, free + b * generator.uniform(1, 1 + jitter)


def closed_loop(bandwidth: Callable[[int], float], b: float, count: int, staleness: int = 3) -> Iterator[Message]:
    """What training sends: a message per iteration of 0.05 s, which waits for the one `staleness + 1` before."""
    generator = np.random.default_rng(8)
    delivered: list[float] = []
    at = free = 0.0
    for step in range(count):
        at = max(at + 0.05, delivered[step - 1 - staleness] + 0.05 if step > staleness else 0.0)
        bits = generator.uniform(5e4, 2.5e5)
        free = max(at, free) + bits / bandwidth(step)
        delivered.append(free + b)
        yield at, bits, delivered[-1]


def after(messages: Iterator[Message], estimator: Estimator | None = None) -> Estimator:
    estimator = estimator or Estimator(EVERY)
    for message in messages:
        estimator.observe(*message)
    return estimator


@pytest.mark.parametrize("load", [0.1, 0.3, 0.6, 0.8])
@settings(max_examples=25)
@given(st.floats(50, 1e9), st.floats(0.2, 20), st.integers(0, 2**31))
def test_random_sizes_tell_bandwidth_and_latency(load: float, a: float, relative: float, seed: int) -> None:
    b = relative * 100 / a
    found = after(open_loop(a, b, load, 4 * EVERY, seed)).report()
    assert found.bandwidth == pytest.approx(a, rel=0.02) and found.latency == pytest.approx(b, rel=0.02)


@pytest.mark.parametrize("load", [0.6, 0.8])
@pytest.mark.parametrize("seed", range(10))
def test_jitter_does_little(load: float, seed: int) -> None:
    a, b = 1e6, 3e-4
    found = after(open_loop(a, b, load, 6 * EVERY, seed, jitter=0.1)).report()
    assert found.bandwidth == pytest.approx(a, rel=0.15) and found.latency == pytest.approx(b, rel=0.15)


def test_a_drop_is_noticed_within_two_rounds_and_latency_stays() -> None:
    estimator = after(closed_loop(lambda step: 3.9e6 if step < 100 else 3.9e5, 0.1, 100 + 2 * EVERY))
    assert estimator.report().bandwidth == pytest.approx(3.9e5, rel=0.02)
    assert estimator.report().latency == pytest.approx(0.1, rel=0.1)


def test_messages_that_meet_an_idle_link_ask_for_a_probe() -> None:
    estimator = Estimator(EVERY)
    for number in range(5 * EVERY + 1):
        assert estimator.needs_probe
        estimator.observe(number * 1.0, 2e5, number + 0.15)
    assert math.isnan(estimator.report().bandwidth) and math.isnan(estimator.report().latency)
    at, sending = 1000.0, PROBE_BITS[0] / 4e6
    for number in (1, 2, 3):
        estimator.observe(at, PROBE_BITS[0], at + 0.1 + number * sending)
    assert not estimator.needs_probe
    assert estimator.report().bandwidth == pytest.approx(4e6) and estimator.report().latency == pytest.approx(0.1)


def test_a_link_that_got_faster_is_found() -> None:
    """By the sizes of its messages, or where they are alike by a probe."""
    faster = after(closed_loop(lambda step: 3.9e6 if step < 100 else 3.9e7, 0.1, 100 + 5 * EVERY))
    assert faster.report().bandwidth == pytest.approx(3.9e7, rel=0.02)
    assert faster.report().latency == pytest.approx(0.1, rel=0.02)
    alike = after(closed_loop(lambda step: 3.9e6, 0.1, 100))
    assert not alike.needs_probe
    for number in range(100, 100 + 5 * EVERY):
        alike.observe(number * 1.0, 2e5, number + 0.1 + 2e5 / 3.9e7)
    assert alike.needs_probe and alike.report().bandwidth == pytest.approx(3.9e6, rel=0.02)
    for number in range(1, 11):
        alike.observe(1000.0, PROBE_BITS[0], 1000.1 + number * PROBE_BITS[0] / 3.9e7)
    assert not alike.needs_probe
    assert alike.report().bandwidth == pytest.approx(3.9e7, rel=0.02)
    assert alike.report().latency == pytest.approx(0.1, rel=0.05)


def test_compute_time_is_a_median_of_the_last() -> None:
    estimator = Estimator(every=4)
    assert math.isnan(estimator.report().compute)
    for seconds in (9.0, 9.0, 0.1, 0.2, 0.3, 50.0):
        estimator.observe_compute(seconds)
    assert estimator.report().compute == pytest.approx(0.25)


def test_only_durations_count() -> None:
    messages = list(open_loop(1e6, 3e-4, 0.7, 80, seed=1))
    here, there = after(iter(messages)), after((t - 7.0, bits, d - 7.0) for t, bits, d in messages)
    assert here.report() == pytest.approx(there.report(), rel=1e-6, nan_ok=True)


def test_a_saved_estimator_goes_on() -> None:
    messages = list(open_loop(1e6, 3e-4, 0.7, 120, seed=4))
    one, other = after(iter(messages[:80])), Estimator(EVERY)
    one.observe_compute(0.05)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert other.report() == one.report() and other.needs_probe == one.needs_probe
    after(iter(messages[80:]), one)
    after(((t + 99, m, d + 99) for t, m, d in messages[80:]), other)
    assert other.report().bandwidth == pytest.approx(one.report().bandwidth, rel=1e-6)
    assert other.report().latency == pytest.approx(one.report().latency, rel=1e-6)
    with pytest.raises(ValueError, match=r"holds nothing; expected bandwidth"):
        other.load_state_dict({})


@pytest.mark.parametrize(
    ("message", "told"),
    [((0.0, 0.0, 1.0), "bits"), ((1.0, 5.0, 0.5), "delivered at 0.5"), ((math.nan, 5.0, 0.5), "nan")],
)
def test_messages_that_cannot_be_are_refused(message: Message, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Estimator().observe(*message)


def test_arguments_out_of_range_are_named() -> None:
    for name, bad in (("every", 1), ("weight", 0.0)):
        with pytest.raises(ValueError, match=name):
            Estimator(**{name: bad})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seconds"):
        Estimator().observe_compute(0.0)


def with_spreads(
    bandwidth: Callable[[float], float], b: float, count: int, staleness: int = 3
) -> Iterator[tuple[float, float, float, float]]:
    """As `closed_loop`, on a link whose bandwidth depends on the time a message begins to pass; it tells spreads."""
    generator = np.random.default_rng(9)
    delivered: list[float] = []
    at = free = 0.0
    for step in range(count):
        at = max(at + 0.05, delivered[step - 1 - staleness] + 0.05 if step > staleness else 0.0)
        bits = generator.uniform(5e4, 2.5e5)
        begin = max(at, free)
        free = begin + bits / bandwidth(begin)
        delivered.append(free + b)
        yield at, bits, delivered[-1], free - begin


@pytest.mark.parametrize("b", [0.0, 0.02, 0.4])
@pytest.mark.parametrize("bandwidth", [1e6, 4e6, 1e8])  # queued all the time, at times, never
def test_spreads_tell_bandwidth_whatever_the_queue(b: float, bandwidth: float) -> None:
    estimator = Estimator()
    for number, message in enumerate(with_spreads(lambda _: bandwidth, b, 200)):
        estimator.observe(*message)
        assert estimator.report().bandwidth == pytest.approx(bandwidth, rel=1e-5)
        if number == 0 or bandwidth == 1e8:
            assert estimator.report().latency == pytest.approx(b, abs=1e-6)
        assert not estimator.needs_probe
    assert b - 1e-6 <= estimator.report().latency <= b + 0.06


@pytest.mark.parametrize("factor", [0.1, 5.0])
def test_spreads_follow_a_change_within_few_messages(factor: float) -> None:
    estimator, since = Estimator(), 0
    for message in with_spreads(lambda at: 4e6 * (factor if at >= 10 else 1.0), 0.1, 600):
        estimator.observe(*message)
        since += message[2] - message[3] - 0.1 >= 10
        if since == 5:
            break
    assert estimator.report().bandwidth == pytest.approx(4e6 * factor, rel=1e-5)
    assert estimator.report().latency == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("growth", [2.0, 8.0])
def test_no_more_is_told_than_some_times_what_was_sent(growth: float) -> None:
    """A bucket of 2e4 bits lets short messages through at once; the link behind it has 1e6 bit/s."""
    estimator, bits, sizes = Estimator(growth=growth), 1e4, list[float]()
    for step in range(40):
        estimator.observe_compute(0.1)
        estimator.observe(float(step), bits, step + 0.5, max(1e-6, (bits - 2e4) / 1e6))
        sizes.append(bits)
        told = estimator.report().bandwidth
        passed = sizes[-5:]
        exact = sum(passed) / sum(max(1e-6, (each - 2e4) / 1e6) for each in passed)
        assert told == pytest.approx(min(exact, growth * max(passed) / 0.1))
        bits = told * 0.1  # as many as pass while computing
    assert bits == pytest.approx(1.2e5, rel=1e-3)  # m = 0.1 s * 1e6 m / (m - 2e4)


def test_probes_count_as_sent_where_no_spreads_are_told() -> None:
    estimator = Estimator(growth=2.0)
    estimator.observe_compute(1.0)
    for number, bits in enumerate([8000.0, 8000.0, *[100.0] * 10]):
        estimator.observe(0.0, bits, 1.0 + bits / 1e5 + number * 0.01)
    assert estimator.report().bandwidth <= 16000.0
    assert estimator.report().bandwidth > 2 * 100.0


def test_spreads_are_kept_with_the_state() -> None:
    one, two = Estimator(), Estimator()
    for message in with_spreads(lambda _: 4e6, 0.1, 50):
        one.observe(*message)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert two.report() == one.report()
    for message in with_spreads(lambda _: 1e6, 0.1, 10):
        one.observe(*message)
        two.observe(*message)
    assert two.report().bandwidth == pytest.approx(1e6) and two.state_dict()["seen"][-1] == one.state_dict()["seen"][-1]


@pytest.mark.parametrize("spread", [-1e-3, math.inf, -math.inf])
def test_spreads_that_cannot_be_are_refused(spread: float) -> None:
    with pytest.raises(ValueError, match="spread"):
        Estimator().observe(0.0, 100.0, 1.0, spread)


def test_a_spread_is_no_longer_than_the_wait() -> None:
    estimator = Estimator()
    estimator.observe(1.0, 100.0, 2.0, 5.0)
    assert estimator.report().bandwidth == pytest.approx(100.0) and estimator.report().latency == 0.0


@pytest.mark.parametrize("pieces", [1, 3, 24])
def test_messages_of_an_iteration_count_together(pieces: int) -> None:
    estimator = Estimator(growth=2.0)
    estimator.pieces = pieces
    estimator.observe_compute(0.1)
    for number in range(7 * pieces):  # one of each iteration is ten times larger
        bits = 1000.0 if number % pieces else 10_000.0
        estimator.observe(float(number), bits, number + 0.5, 1e-9)
    assert estimator.report().bandwidth == pytest.approx(2 * (10_000 + 1000 * (pieces - 1)) / 0.1)


def test_copies_share_bandwidth_and_leave_latency_alone() -> None:
    one, three = Estimator(), Estimator()
    for message in with_spreads(lambda _: 4e6, 0.1, 50):
        one.observe(*message)
        three.observe(*message, copies=3.0)
    assert three.report().bandwidth == pytest.approx(one.report().bandwidth / 3)
    assert three.report().latency == one.report().latency == pytest.approx(0.1)


def test_more_pieces_than_are_kept_count_as_many_as_they_are() -> None:
    estimator = Estimator(growth=2.0)
    estimator.pieces = 1000
    estimator.observe_compute(0.1)
    for number in range(1500):
        estimator.observe(float(number), 1000.0, number + 0.5, 1e-9)
    assert estimator.report().bandwidth == pytest.approx(2 * 1000 * 1000 / 0.1)


@pytest.mark.parametrize("copies", [0.0, 0.5, -1.0, math.nan, math.inf])
def test_copies_that_cannot_be_are_refused(copies: float) -> None:
    estimator = Estimator()
    with pytest.raises(ValueError, match="copies"):
        estimator.observe(0.0, 100.0, 1.0, 0.5, copies)
    assert estimator.state_dict() == Estimator().state_dict()
