"""Traces against sums over fine steps, and the properties every trace has."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.fields.wide_area.network.truth import mean_conditions, true_conditions
from acclimate.links.piecewise import Piecewise
from acclimate.links.trace import Trace
from acclimate.links.traces import constant, markov, sine, step_drop, uniform

TRACES: dict[str, Callable[[], Trace]] = {
    "constant": lambda: constant(70.0),
    "sine": lambda: sine(100.0, amplitude=0.8, period=7.0, phase=1.0),
    "step_drop": lambda: step_drop(100.0, at=3.0, share=0.1, seconds=4.0),
    "markov": lambda: markov(200.0, 20.0, stay_high=2.0, stay_low=1.0, seed=5),
    "uniform": lambda: uniform(10.0, 150.0, every=1.5, seed=5),
}
every_trace = pytest.mark.parametrize("name", TRACES)
moments = st.floats(0, 40)
amounts = st.floats(0, 3000)


@every_trace
@pytest.mark.parametrize(("start", "end"), [(0.0, 20.0), (2.3, 2.9), (1.7, 11.1)])
def test_bits_are_the_sum_over_fine_steps(name: str, start: float, end: float) -> None:
    trace = TRACES[name]()
    width = (end - start) / 8000
    summed = width * sum(trace.bandwidth(start + (step + 0.5) * width) for step in range(8000))
    jumps = 40 * 200 * width  # each jump misplaces at most one step
    assert trace.bits(start, end) == pytest.approx(summed, abs=jumps if name in ("markov", "uniform") else 0.5)
    assert trace.mean(start, end) == pytest.approx(summed / (end - start), rel=0.05)


@every_trace
@given(moments, amounts)
def test_so_many_bits_pass_until_they_are_through(name: str, start: float, bits: float) -> None:
    trace = TRACES[name]()
    end = trace.finish(start, bits)
    assert end >= start
    assert trace.bits(start, end) == pytest.approx(bits, rel=1e-9, abs=1e-8)


@every_trace
@given(moments, amounts, amounts)
def test_sending_on_is_sending_more(name: str, start: float, first: float, second: float) -> None:
    trace = TRACES[name]()
    once, twice = trace.finish(start, first + second), trace.finish(trace.finish(start, first), second)
    assert once == pytest.approx(twice, rel=1e-9, abs=1e-9)
    assert trace.finish(start, first) <= once + 1e-9


@every_trace
def test_no_bits_take_no_time_and_many_take_long(name: str) -> None:
    trace = TRACES[name]()
    assert trace.finish(12.3, 0.0) == 12.3 and trace.bits(5.0, 5.0) == 0
    late = trace.finish(1e4, 1e5)
    assert trace.bits(1e4, late) == pytest.approx(1e5, rel=1e-9)


@every_trace
def test_answers_do_not_depend_on_the_order_of_questions(name: str) -> None:
    one, other = TRACES[name](), TRACES[name]()
    other.bandwidth(500.0)
    assert [one.bandwidth(t) for t in range(60)] == [other.bandwidth(t) for t in range(59, -1, -1)][::-1]
    assert one.finish(3.0, 4000.0) == other.finish(3.0, 4000.0)


def test_seeds_tell_drawn_traces_apart() -> None:
    for build in (lambda seed: markov(9.0, 1.0, seed=seed), lambda seed: uniform(1.0, 9.0, seed=seed)):
        seen = [[build(seed).bandwidth(t) for t in np.arange(0, 200, 0.5)] for seed in (1, 1, 2)]
        assert seen[0] == seen[1] != seen[2]


def test_drawn_traces_have_the_shares_they_were_asked_for() -> None:
    two = markov(3.0, 1.0, stay_high=6.0, stay_low=2.0, seed=0)
    assert two.mean(0, 40_000) == pytest.approx((3 * 6 + 1 * 2) / 8, rel=0.03)
    assert {two.bandwidth(t) for t in range(200)} == {3.0, 1.0}
    drawn = uniform(1.0, 5.0, every=2.0, seed=0)
    assert drawn.mean(0, 20_000) == pytest.approx(3.0, rel=0.03)
    assert all(1 <= drawn.bandwidth(t) < 5 for t in range(0, 400, 2))


def test_a_sine_is_one() -> None:
    found = [sine(100.0, amplitude=0.8, period=20.0).bandwidth(t) for t in np.linspace(0, 50, 101)]
    assert found == pytest.approx(100 * (1 + 0.8 * np.sin(2 * np.pi * np.linspace(0, 50, 101) / 20)))


def test_changes_count_from_their_moment_on() -> None:
    trace = step_drop(100.0, at=3.0, share=0.1, seconds=4.0)
    assert [trace.bandwidth(t) for t in (2.999, 3.0, 6.999, 7.0)] == [100.0, 10.0, 10.0, 100.0]


def test_outages_are_waited_for() -> None:
    trace = Piecewise([(1.0, 10.0), (5.0, 0.0), (math.inf, 10.0)])
    assert trace.finish(0.0, 10.0) == 1.0 and trace.finish(0.5, 10.0) == 6.5
    assert trace.finish(3.0, 0.0) == 3.0 and trace.finish(3.0, 5.0) == 6.5 and trace.bits(2.0, 6.0) == 0


@pytest.mark.parametrize(
    ("pieces", "told"),
    [([(1.0, 5.0)], "ends at 1.0"), ([(0.0, 5.0)], "0.0 s"), ([(1.0, -5.0)], "-5.0"), ([(math.inf, 0.0)], "inf")],
)
def test_pieces_out_of_range_are_told(pieces: list[tuple[float, float]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Piecewise(pieces).finish(0.0, 10.0)


@every_trace
def test_times_and_bits_out_of_range_are_refused(name: str) -> None:
    trace = TRACES[name]()
    for ask in (
        lambda: trace.bandwidth(-1.0),
        lambda: trace.bandwidth(math.nan),
        lambda: trace.bits(2.0, 1.0),
        lambda: trace.finish(0.0, -1.0),
        lambda: trace.finish(0.0, math.inf),
        lambda: trace.mean(1.0, 1.0),
    ):
        with pytest.raises(ValueError, match=r"expected|finite"):
            ask()


def test_arguments_out_of_range_are_named() -> None:
    for build, named in (
        (lambda: constant(0.0), "rate"),
        (lambda: sine(1.0, amplitude=1.0), "amplitude"),
        (lambda: sine(1.0, period=0.0), "period"),
        (lambda: step_drop(1.0, at=0.0), "at"),
        (lambda: step_drop(1.0, at=1.0, seconds=0.0), "seconds"),
        (lambda: markov(1.0, 0.0), "low"),
        (lambda: uniform(2.0, 1.0), "low"),
        (lambda: uniform(1.0, 2.0, seed=-1), "seed"),
    ):
        with pytest.raises(ValueError, match=named):
            build()


def test_conditions_of_a_moment_and_of_a_span() -> None:
    trace = step_drop(100.0, at=2.0)
    known = {"compute": 0.1, "latency": 0.2, "dense_bits": 1e6}
    assert [true_conditions(trace, at, **known).bandwidth for at in (1.0, 3.0)] == [100.0, 10.0]
    assert mean_conditions(trace, 1.0, 4.0, **known).bandwidth == pytest.approx(40.0)
