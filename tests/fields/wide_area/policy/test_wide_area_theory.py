"""Noise factors, stability, conditions and ratios against their formulas."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.fields.wide_area.policy.conditions import Conditions, Report, Setting, agreed
from acclimate.fields.wide_area.policy.contraction import contraction, wire_ratio
from acclimate.fields.wide_area.policy.noise import NOISE, half, note, tight
from acclimate.fields.wide_area.policy.period import period, zero_stall
from acclimate.fields.wide_area.policy.stability import limit, most_stale, step_share

COLUMNS = (0.01, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0)
TABLE = {
    0: (99.0, 19.0, 9.00, 4.00, 1.00, 0.111, 0),
    1: (99.5, 19.5, 9.47, 4.44, 1.33, 0.202, 0),
    2: (100.0, 20.0, 9.97, 4.94, 1.78, 0.367, 0),
    4: (101.0, 21.0, 11.1, 6.10, 3.16, 1.21, 0),
    8: (103.1, 23.3, 13.6, 9.29, 9.99, 13.3, 0),
}
LIMITS = {0: 2, 1: 1, 2: 0.618, 4: 0.347, 8: 0.184, 11: 0.137, 16: 0.0952}


@pytest.mark.parametrize("staleness", TABLE)
def test_the_published_noise(staleness: int) -> None:
    found = [half(share, staleness) for share in COLUMNS]
    assert found == pytest.approx(TABLE[staleness], rel=6e-3)


def test_noise_is_not_monotone_at_great_staleness() -> None:
    """Where `tau > (2 - delta) / (delta (1 - delta))` it rises."""
    for staleness, low, high in ((6, 0.52, 0.65), (8, 0.32, 0.81)):
        assert half(low, staleness) < half(high, staleness)
        assert half(low - 0.1, staleness) > half(low, staleness)
        assert half(high, staleness) > half(high + 0.15, staleness)


@given(st.floats(1e-3, 0.5), st.integers(0, 20))
def test_the_other_factors_follow_their_formulas(share: float, staleness: int) -> None:
    assert note(share, staleness) == pytest.approx((1 - share) ** (1 - staleness) / share)
    assert tight(share, staleness) == pytest.approx(4 * (1 - share) / share**2 + staleness / 2)
    assert {name: each(share, staleness) for name, each in NOISE.items()} == {
        "half": half(share, staleness),
        "note": note(share, staleness),
        "tight": tight(share, staleness),
    }


def test_noise_without_compression_or_bounds() -> None:
    assert half(1.0, 50) == 0 and tight(1.0, 0) == 0 and note(1.0, 3) == note(0.5, 3)
    assert half(0.999999, 10**6) == math.inf


@pytest.mark.parametrize(("staleness", "expected"), LIMITS.items())
def test_the_published_limits(staleness: int, expected: float) -> None:
    assert limit(staleness) == pytest.approx(expected, rel=4e-3)


@pytest.mark.parametrize("staleness", [0, 1, 2, 4, 8])
def test_delayed_descent_is_stable_below_the_limit_and_not_above(staleness: int) -> None:
    def last(share: float) -> float:
        x = [1.0] * (staleness + 1)
        for _ in range(4000):
            x.append(x[-1] - share * limit(staleness) * x[-1 - staleness])
            x = x[-1 - staleness :]
        return max(map(abs, x))

    assert last(0.95) < 1e-3 and last(1.05) > 1e3


@given(st.floats(1e-4, 3), st.floats(0.05, 1))
def test_the_most_staleness_a_step_size_bears(product: float, share: float) -> None:
    found = most_stale(product, 1.0, share)
    assert found == 0 or product < share * limit(found)
    assert product >= share * limit(found + 1)
    assert most_stale(product / 2, 2.0, share) == found


def test_step_sizes_shrink_with_staleness_only() -> None:
    assert most_stale(1e-300, 1.0) > 10**6
    assert step_share(3, 3) == step_share(2, 3) == 1
    assert step_share(8, 2) == pytest.approx(0.18454 / 0.61803, rel=1e-3)
    with pytest.raises(ValueError, match="curvature"):
        most_stale(0.1, 0.0)


@pytest.mark.parametrize(
    ("compute", "latency", "sending", "staleness", "expected"),
    [
        (0.1, 0.2, 0.05, 0, 0.35),
        (0.1, 0.2, 0.05, 1, 0.175),
        (0.1, 0.2, 0.05, 2, 0.11667),
        (0.1, 0.2, 0.05, 3, 0.1),
        (0.1, 0.2, 0.3, 3, 0.3),
    ],
)
def test_the_published_periods(compute: float, latency: float, sending: float, staleness: int, expected: float) -> None:
    conditions = Conditions(compute, 1e6, latency, 1e6)
    assert period(Setting(staleness, sending), conditions) == pytest.approx(expected, abs=1e-5)


@given(st.floats(0.01, 1), st.floats(0, 4), st.floats(0.01, 1), st.integers(0, 8))
def test_zero_stall_is_both_conditions(compute: float, latency: float, ratio: float, staleness: int) -> None:
    conditions = Conditions(compute, 1e6, latency, 1e6)
    room = min(compute, staleness * compute - latency)
    if abs(ratio - room) > 1e-6:  # at the border rounding decides
        assert zero_stall(Setting(staleness, ratio), conditions) == (ratio <= room)


def test_conditions_out_of_range_are_named() -> None:
    good = {"compute": 0.1, "bandwidth": 1e6, "latency": 0.0, "dense_bits": 1e6}
    Conditions(**good)
    for name in good:
        for bad in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=name):
                Conditions(**{**good, name: bad})
    with pytest.raises(ValueError, match="ratio"):
        Setting(1, 0.0)
    with pytest.raises(ValueError, match="ratio"):
        Setting(1, math.nan)
    with pytest.raises(ValueError, match="staleness"):
        Setting(-1, 0.5)


reports = st.builds(Report, st.floats(1e-3, 10), st.floats(1, 1e9), st.floats(0, 10))


@given(st.lists(reports, min_size=1, max_size=6))
def test_workers_agree_whatever_the_order(given_reports: list[Report]) -> None:
    found = agreed(given_reports, 1e6)
    assert found is not None
    for each in given_reports:
        assert found.compute >= each.compute and found.bandwidth <= each.bandwidth
        assert found.compute + found.latency >= (each.compute + each.latency) * (1 - 1e-9)
    assert agreed(reversed(given_reports), 1e6) == found


def test_a_worker_without_knowledge_keeps_all_from_deciding() -> None:
    known = Report(0.1, 1e6, 0.1)
    for unknown in (Report(math.nan, 1e6, 0.1), Report(0.1, 0.0, 0.1), Report(0.1, 1e6, math.nan), Report(0, 1, 0)):
        assert agreed([known, unknown], 1e6) is None and agreed([unknown, known], 1e6) is None
    with pytest.raises(ValueError, match="no reports"):
        agreed([], 1e6)


@given(st.floats(1e-4, 0.49), st.sampled_from([(64, 32), (48, 16), (40, 32)]))
def test_ratio_and_contraction_are_inverse(kept: float, bits: tuple[int, int]) -> None:
    per_entry, value = bits
    ratio = wire_ratio(kept, per_entry, value)
    if kept * per_entry < value:
        assert ratio == pytest.approx(kept * per_entry / 32)
        assert contraction(ratio, per_entry, value) == pytest.approx(kept)
    else:
        assert ratio == value / 32 and contraction(ratio, per_entry, value) == 1
