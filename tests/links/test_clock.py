"""Virtual links and timelines against simulators that know no formula."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque

import numpy as np
import pytest

from acclimate.fields.wide_area.policy.conditions import Conditions, Setting
from acclimate.fields.wide_area.policy.period import period
from acclimate.links.clock import Lane, VirtualLink, timeline
from acclimate.links.topology import TOPOLOGIES, fan_out
from acclimate.links.traces import constant, markov, sine, step_drop


def simulated(compute: float, latency: float, sending: float, staleness: int, steps: int) -> list[float]:
    """When each iteration's work was done, by events: machines are idle or not, messages queue or travel."""
    done: list[float] = []
    arrived: set[int] = set()
    queue: deque[int] = deque()
    computing, link_busy, events = False, False, itertools.count()
    heap: list[tuple[float, int, str, int]] = []
    now = 0.0
    while len(done) < steps:
        following = len(done)
        if not computing and (following <= staleness or following - 1 - staleness in arrived):
            computing = True
            heapq.heappush(heap, (now + compute, next(events), "computed", following))
        if not link_busy and queue:
            link_busy = True
            heapq.heappush(heap, (now + sending, next(events), "sent", queue.popleft()))
        now, _, what, number = heapq.heappop(heap)
        if what == "computed":
            computing = False
            done.append(now)
            queue.append(number)
        elif what == "sent":
            link_busy = False
            heapq.heappush(heap, (now + latency, next(events), "arrived", number))
        else:
            arrived.add(number)
    return done


def test_the_period_is_that_of_a_simulation() -> None:
    generator = np.random.default_rng(11)
    for _ in range(400):
        staleness = int(generator.integers(0, 9))
        compute, latency, sending = generator.uniform(0.02, 1), generator.uniform(0, 4), generator.uniform(0.01, 1)
        skip, counted = 500, 5 * (staleness + 1)
        ends = simulated(compute, latency, sending, staleness, skip + counted + 1)
        measured = (ends[-1] - ends[skip]) / counted
        conditions = Conditions(compute, 1e6, latency, 1e6)
        assert period(Setting(staleness, sending), conditions) == pytest.approx(measured, rel=5e-3)


def test_a_timeline_is_that_of_a_simulation() -> None:
    generator = np.random.default_rng(12)
    for _ in range(60):
        staleness = int(generator.integers(0, 9))
        compute, latency, sending = generator.uniform(0.02, 1), generator.uniform(0, 4), generator.uniform(0.01, 1)
        link = VirtualLink(constant(1e6), latency)
        found = timeline([link], steps=60, staleness=staleness, bits=sending * 1e6, compute=compute)
        assert [row[0] for row in found.computed] == pytest.approx(
            simulated(compute, latency, sending, staleness, 60), rel=1e-9
        )


@pytest.mark.parametrize("name", ["sine", "drop", "markov"])
def test_a_link_is_that_of_a_fluid_in_small_steps(name: str) -> None:
    """Bits trickle out of a queue, a millisecond at a time."""
    build = {
        "sine": lambda: sine(100.0, period=3.0),
        "drop": lambda: step_drop(100.0, at=2.0, seconds=3.0),
        "markov": lambda: markov(150.0, 15.0, stay_high=1.0, stay_low=1.0, seed=1),
    }[name]
    generator = np.random.default_rng(2)
    at = np.cumsum(generator.uniform(0, 1, 12))
    sizes = generator.uniform(5, 80, 12)
    link = VirtualLink(build(), latency=0.25)
    found = [link.send(float(t), float(bits)) for t, bits in zip(at, sizes, strict=True)]
    trace, width, now, expected = build(), 1e-3, 0.0, []
    for t, bits in zip(at, sizes, strict=True):
        now, left = max(now, float(t)), float(bits)
        while left > 0:
            left -= trace.bandwidth(now) * width
            now += width
        expected.append(now + 0.25)
    assert found == pytest.approx(expected, abs=0.03)
    assert all(later > earlier for earlier, later in itertools.pairwise(found))


def test_latency_is_pipelined_and_bandwidth_is_not() -> None:
    link = VirtualLink(constant(100.0), latency=5.0)
    assert [link.send(0.0, 50.0) for _ in range(3)] == [5.5, 6.0, 6.5]
    assert link.send(10.0, 50.0) == 15.5 and link.free == 10.5
    assert VirtualLink(constant(100.0), 1.0, free=link.free).send(0.0, 50.0) == 12.0


def test_all_wait_for_the_slowest() -> None:
    links = [VirtualLink(constant(1e6), 0.1), VirtualLink(constant(1e5), 0.1)]
    found = timeline(links, steps=41, staleness=1, bits=5e4, compute=[0.1, 0.2])
    slow = timeline([VirtualLink(constant(1e5), 0.1)], steps=41, staleness=1, bits=5e4, compute=0.2)
    assert found.period(skip=20) == pytest.approx(slow.period(skip=20)) == pytest.approx(0.5)
    assert all(row[0] <= row[1] for row in found.computed)
    assert len(found.arrived) == 41 and len(found.arrived[0]) == 2


def test_a_lane_does_one_thing_at_a_time() -> None:
    lane = Lane()
    assert [lane.run(1.0, 0.5), lane.run(0.0, 0.25), lane.run(9.0, 0.0)] == [1.5, 1.75, 9.0]
    with pytest.raises(ValueError, match="seconds"):
        lane.run(0.0, math.nan)


def test_arguments_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="times"):
        VirtualLink(constant(1.0), latency=-1.0)
    with pytest.raises(ValueError, match="bits"):
        VirtualLink(constant(1.0), latency=0.0).send(0.0, -1.0)
    link = VirtualLink(constant(1.0), 0.0)
    for settings, named in (
        ({"steps": 0}, "steps"),
        ({"staleness": -1}, "staleness"),
        ({"compute": 0.0}, "compute"),
        ({"compute": [1.0, 1.0]}, "2 workers"),
    ):
        with pytest.raises(ValueError, match=named):
            timeline([link], **{"steps": 3, "staleness": 0, "bits": 1.0, "compute": 1.0, **settings})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3 iterations"):
        timeline([link], steps=3, staleness=0, bits=1.0, compute=1.0).period(skip=2)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_copies_are_what_a_worker_sends(workers: int) -> None:
    """Counted by hand: a message to everybody, a ring passed on, and a ring of chunks there and back."""
    everybody = sum(1 for other in range(workers) if other != 0)
    chunk = 1 / workers
    ring = 2 * sum(chunk for _ in range(workers - 1))
    assert fan_out("server", workers) == (1, 1) and fan_out("gather", workers) == (everybody, 1)
    assert fan_out("ring_gather", workers) == (everybody, workers - 1)
    assert fan_out("ring_reduce", workers).copies == pytest.approx(ring)
    assert set(TOPOLOGIES) == {"server", "gather", "ring_gather", "ring_reduce"}


def test_topologies_that_are_none() -> None:
    with pytest.raises(ValueError, match="topology"):
        fan_out("star", 4)
    with pytest.raises(ValueError, match="workers"):
        fan_out("gather", 1)
