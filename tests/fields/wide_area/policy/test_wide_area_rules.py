"""The rules to compare with."""

from __future__ import annotations

import math

import pytest

from acclimate.fields.wide_area.policy.accordion import Accordion
from acclimate.fields.wide_area.policy.cocktail import BUCKET, KEPT, RATIO, SUBSET, VALUE_BITS, cocktail
from acclimate.fields.wide_area.policy.conditions import Conditions, Setting
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.policy.fixed import DelayedDense, Static, StaticAtMean, Synchronous
from acclimate.fields.wide_area.policy.period import period

SLOW, FAST = Conditions(0.05, 8e5, 0.1, 1.63e6), Conditions(0.05, 7.2e6, 0.1, 1.63e6)
MEAN = Conditions(0.05, 4e6, 0.1, 1.63e6)


def test_fixed_rules_ask_for_the_same_everywhere() -> None:
    for rule in (Synchronous(), Static(staleness=1, ratio=0.02), StaticAtMean(mean=MEAN), cocktail(), Accordion()):
        assert rule.decide(SLOW) == rule.decide(FAST) and not rule.adapts
        assert rule.decide(SLOW).staleness <= rule.stalest()
    assert period(Synchronous().decide(MEAN), MEAN) == pytest.approx(0.05 + 1.63e6 / 4e6 + 0.1)
    assert StaticAtMean(mean=MEAN, rule=DeCo(count_indices=False)).decide(SLOW).ratio == pytest.approx(0.123, abs=5e-4)
    assert StaticAtMean(mean=MEAN).decide(SLOW).staleness == 3


def test_rules_that_can_do_with_less_staleness() -> None:
    assert Static(staleness=5, ratio=0.1).limited(2) == Static(staleness=2, ratio=0.1)
    assert Static(staleness=1, ratio=0.1).limited(2).decide(SLOW) == Setting(1, 0.1)
    assert StaticAtMean(mean=MEAN).limited(2).decide(SLOW) == DeCo(most_stale=2).decide(MEAN)
    assert DelayedDense().limited(2).decide(SLOW).staleness == 2
    assert Synchronous().limited(0) == Synchronous()


def test_delayed_dense_hides_latency_and_no_bandwidth() -> None:
    wide = Conditions(0.1, 2e7, 0.55, 1e6)
    found = DelayedDense().decide(wide)
    assert found == Setting(6, 1.0) and period(found, wide) == pytest.approx(0.1)
    assert DelayedDense().decide(SLOW) == Setting(8, 1.0)
    assert period(DelayedDense().decide(SLOW), SLOW) == pytest.approx(1.63e6 / 8e5)
    assert DelayedDense().decide(Conditions(1e-9, 1.0, 1e9, 1e9)).staleness == 8


@pytest.mark.parametrize(
    ("norms", "strong"),
    [
        ([], False),
        ([3.0], False),
        ([1.0, 0.9], True),
        ([1.0, 0.51], True),
        ([1.0, 0.5], False),
        ([1.0, 1.49], True),
        ([1.0, 1.5], False),
        ([9.0, 1.0, 1.1], True),
        ([0.0, 0.0], False),
    ],
)
def test_accordion_compresses_while_norms_stay_alike(norms: list[float], strong: bool) -> None:
    assert Accordion().decide_by(norms) == Setting(0, 0.2 if strong else 1.0)


def test_accordion_refuses_norms_that_are_none() -> None:
    with pytest.raises(ValueError, match="current"):
        Accordion().decide_by([1.0, math.nan])
    with pytest.raises(ValueError, match="weak"):
        Accordion(strong=0.5, weak=0.1)


def test_the_cocktail() -> None:
    assert (SUBSET, KEPT, VALUE_BITS, BUCKET) == (0.1, 0.2, 4, 128)
    assert pytest.approx(0.0056, abs=5e-5) == RATIO
    entries = 128_000
    bits = entries // 10 + entries // 50 * 4  # a flag for each of the subset, four bits for each that is kept
    assert bits / (32 * entries) == pytest.approx(RATIO)
