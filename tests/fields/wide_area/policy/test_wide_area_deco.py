"""DeCo against the specification's vectors, a search over all staleness, and its general form written out anew."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.fields.wide_area.policy.conditions import Conditions, Setting
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.policy.period import period, zero_stall

VECTORS = [  # T, b, a, S; tau, delta, phi
    ((0.5, 0.2, 1e8, 3.968e9), (2, 0.01260, 79.36)),
    ((0.3, 0.2, 5e8, 2.752e9), (2, 0.05451, 18.33)),
    ((0.05, 0.1, 1e8, 3.84e7), (3, 0.13021, 8.175)),
    ((0.5, 1.0, 1e9, 3.968e9), (3, 0.12601, 8.431)),
    ((0.1, 0.19, 1e8, 1e9), (3, 0.01, 100.5)),
    ((1, 0.02, 5e8, 1e9), (1, 0.49, 1.3786)),
    ((1, 0.1, 1e9, 1.1e9), (2, 0.90909, 0.3361)),
]
OTHERS = [  # of the same conditions, what the other candidate has
    (0, (1, 0.00756, 131.8)),
    (1, (1, 0.01817, 54.5)),
    (4, (2, 0.001, 1000)),
    (5, (2, 0.5, 1.7778)),
    (6, (1, 0.81818, 0.3761)),
]

times = st.floats(1e-3, 10)
shares = st.floats(1e-2, 1e3)


def given_as(compute: float, latency: float, bandwidth: float, dense_bits: float) -> Conditions:
    return Conditions(compute, bandwidth, latency, dense_bits)


def phi(kept: float, staleness: int) -> float:
    return (1 - kept) / (kept * (1 - kept / 2) ** staleness)


@pytest.mark.parametrize(("conditions", "expected"), VECTORS)
def test_the_published_vectors(conditions: tuple[float, ...], expected: tuple[int, float, float]) -> None:
    policy = DeCo(count_indices=False)
    found = policy.decide(given_as(*conditions))
    assert found.staleness == expected[0]
    assert found.ratio == pytest.approx(expected[1], abs=1e-5)
    assert policy.noise_of(found) == pytest.approx(expected[2], rel=5e-4)
    assert zero_stall(found, given_as(*conditions))


@pytest.mark.parametrize(("vector", "expected"), OTHERS)
def test_the_candidates_that_were_not_taken(vector: int, expected: tuple[int, float, float]) -> None:
    policy = DeCo(count_indices=False)
    found = policy.keeping(expected[0], given_as(*VECTORS[vector][0]))
    assert found.ratio == pytest.approx(expected[1], abs=1e-5)
    assert policy.noise_of(found) == pytest.approx(expected[2], rel=2e-3)


@pytest.mark.parametrize("counted", [False, True])
def test_no_staleness_up_to_forty_is_better(counted: bool) -> None:
    generator = np.random.default_rng(7)
    policy = DeCo(count_indices=counted, least=1e-9, most_stale=40)
    for _ in range(3000):
        compute = 10 ** generator.uniform(-2, 0.5)
        latency = compute * generator.uniform(0, 38)
        bandwidth = 10 ** generator.uniform(5, 10)
        dense = bandwidth * compute * 10 ** generator.uniform(-0.5, 2)
        best, expected = math.inf, (0, 0.0)
        for staleness in range(41):
            if staleness * compute <= latency:
                continue
            ratio = min(1, bandwidth * compute / dense, bandwidth * (staleness * compute - latency) / dense)
            kept = ratio if not counted or ratio == 1 else ratio / 2
            if phi(kept, staleness) < best:
                best, expected = phi(kept, staleness), (staleness, ratio)
        found = policy.decide(Conditions(compute, bandwidth, latency, dense))
        assert found.staleness == expected[0]
        assert found.ratio == pytest.approx(expected[1], rel=1e-12)


def test_an_integer_number_of_hidden_iterations_has_one_candidate() -> None:
    for whole in range(1, 7):
        found = DeCo().decide(Conditions(0.25, 1e6, 0.25 * whole, 1e6))
        assert found == Setting(whole + 1, 0.25)


@given(times, st.floats(0, 60), shares, st.floats(1e-3, 1e3))
def test_time_has_no_unit(compute: float, hidden: float, share: float, scale: float) -> None:
    conditions = Conditions(compute, 1e6, compute * hidden, 1e6 * compute * share)
    scale = 2.0 ** round(math.log2(scale))  # exact, so that no rounding decides between equals
    scaled = Conditions(compute * scale, 1e6 / scale, compute * hidden * scale, 1e6 * compute * share)
    for policy in (DeCo(), DeCo(objective="tta"), DeCo(noise="tight", least_stale=0)):
        assert policy.decide(conditions) == policy.decide(scaled)


def capped(conditions: Conditions, *, least: float, low: int, high: int) -> tuple[int, float]:
    """The specification's 5.3, free indices."""
    t, a, b, s = conditions.compute, conditions.bandwidth, conditions.latency, conditions.dense_bits
    found: list[tuple[float, float, int, float]] = []
    for tau in range(low, min(high, math.ceil(b / t) + 1) + 1):
        p0 = max(t, (t + b) / (tau + 1))
        r = p0 if tau * t > b else 1.1 * p0
        delta = min(max(min(r * a / s, (r * (tau + 1) - t - b) * a / s), least), 1.0)
        p = max(t, delta * s / a, (t + delta * s / a + b) / (tau + 1))
        found.append((round(p / t, 1), phi(delta, tau), tau, delta))
    return min(found)[2:]


@given(times, st.floats(9, 60), shares)
def test_the_general_form_where_latency_cannot_be_hidden(compute: float, hidden: float, share: float) -> None:
    conditions = Conditions(compute, 1e6, compute * hidden, 1e6 * compute * share)
    found = DeCo(count_indices=False).decide(conditions)
    staleness, ratio = capped(conditions, least=1e-3, low=1, high=8)
    assert found.staleness == staleness and found.ratio == pytest.approx(ratio, rel=1e-12)


@given(times, st.floats(0, 6.9), shares)
def test_closed_and_general_form_agree(compute: float, hidden: float, share: float) -> None:
    """Where no cap binds, the general form's answer is as fast, up to its rounding of time."""
    conditions = Conditions(compute, 1e6, compute * hidden, 1e6 * compute * share)
    policy = DeCo(count_indices=False)
    closed = policy.decide(conditions)
    tau, delta = capped(conditions, least=1e-3, low=1, high=8)
    general = Setting(tau, delta)
    assert round(period(closed, conditions) / compute, 1) == round(period(general, conditions) / compute, 1)
    if zero_stall(general, conditions) and zero_stall(closed, conditions):
        assert policy.noise_of(closed) == pytest.approx(policy.noise_of(general), rel=1e-9)


@given(times, st.floats(0, 30), st.floats(1e-2, 1e6), st.integers(0, 4), st.integers(0, 12))
def test_caps_hold(compute: float, hidden: float, share: float, low: int, more: int) -> None:
    policy = DeCo(least_stale=low, most_stale=low + more)
    found = policy.decide(Conditions(compute, 1e6, compute * hidden, 1e6 * compute * share))
    assert low <= found.staleness <= low + more and 1e-3 <= found.ratio <= 1
    assert policy.stalest() == low + more and policy.limited(low + 1).stalest() == min(low + more, low + 1)


def test_a_collapsed_link_gets_the_least_ratio() -> None:
    conditions = Conditions(0.1, 1e3, 0.05, 1e7)
    found = DeCo().decide(conditions)
    assert found.ratio == 1e-3
    assert period(found, conditions) == pytest.approx(1e-3 * 1e7 / 1e3)


def test_synchronous_steps_are_taken_only_where_they_cost_less_than_a_twentieth() -> None:
    cheap, dear = Conditions(1.0, 1e8, 0.01, 1e6), Conditions(1.0, 1e7, 0.01, 1e6)  # 2 % and 11 % of an iteration
    assert DeCo(least_stale=0).decide(cheap) == Setting(0, 1.0)
    assert DeCo(least_stale=0).decide(dear) == Setting(1, 1.0)
    assert DeCo().decide(cheap) == Setting(1, 1.0)


def test_indices_cost_contraction() -> None:
    conditions = given_as(*VECTORS[0][0])
    counted, free = DeCo(), DeCo(count_indices=False)
    setting = Setting(2, 0.0126)
    assert counted.noise_of(setting) == pytest.approx(free.noise_of(Setting(2, 0.0063)))
    half = DeCo(bits_per_entry=48, value_bits=16)
    assert half.noise_of(setting) == pytest.approx(free.noise_of(Setting(2, 0.0126 * 32 / 48)))
    fast = Conditions(1.0, 1e9, 0.5, 1e6)
    assert half.decide(fast).ratio == 0.5 and half.noise_of(half.decide(fast)) == 0
    assert counted.decide(conditions).ratio == free.decide(conditions).ratio


def test_time_to_accuracy_weighs_iterations() -> None:
    conditions = Conditions(0.05, 4e6, 0.5, 1.63e6)
    found = DeCo(objective="tta", count_indices=False, most_stale=12).decide(conditions)

    def cost(tau: int) -> float:
        setting = DeCo(count_indices=False, most_stale=12).keeping(tau, conditions)
        d = setting.ratio
        spread = math.sqrt(4 * (1 - d) / d**2 + 2 * tau * 0.25)
        return period(setting, conditions) * (1 + 0.02 * spread + 0.005 * (tau + 1 / d))

    assert found.staleness == min(range(1, 12), key=cost)
    delayed = DeCo(objective="tta", delay_weight=10, compression_weight=0).decide(conditions)
    assert delayed.staleness < DeCo(most_stale=12).decide(conditions).staleness


def test_noise_is_pluggable() -> None:
    conditions = Conditions(1.0, 5e8, 0.02, 1e9)
    later = DeCo(noise=lambda kept, staleness: -staleness)
    assert later.decide(conditions).staleness == 2 and DeCo().decide(conditions).staleness == 1
    assert DeCo(noise="tight", count_indices=False).noise_of(Setting(2, 0.5)) == pytest.approx(9.0)
    assert DeCo(noise="tight", noise_share=1.0, count_indices=False).noise_of(Setting(2, 0.5)) == pytest.approx(12.0)
    assert DeCo(noise="tight").config()["noise"] == "tight"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"noise": "loud"}, "noise"),
        ({"objective": "speed"}, "objective"),
        ({"least": 0.0}, "least"),
        ({"least": 0.6, "value_bits": 16}, "least"),
        ({"least_stale": 3, "most_stale": 2}, "most_stale"),
        ({"least_stale": -1}, "least_stale"),
        ({"slack": math.nan}, "slack"),
        ({"value_bits": 4}, "value_bits"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DeCo(**settings)
