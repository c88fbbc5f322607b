"""ADWIN, held to river's, and as declared state."""

from __future__ import annotations

import math

import pytest
import torch
from river import drift

from acclimate.core.table import Table
from acclimate.guard.detectors.adwin import Adwin
from acclimate.guard.detectors.detector import detectors
from guard.sequences import sequences

SETTINGS = {
    "default": {},
    "every value": {"delta": 0.05, "clock": 1},
    "coarse": {"max_buckets": 3, "min_window_length": 2, "grace_period": 50, "clock": 7, "delta": 0.3},
    "smallest": {"max_buckets": 2, "min_window_length": 1, "clock": 1, "grace_period": 0},
}
SEQUENCES = sequences()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("values", SEQUENCES.values(), ids=SEQUENCES)
def test_finds_what_river_finds(values, settings):
    """The same indices, window and estimate; the paper's window, kept after a change."""
    follow(values, settings, restart=False)


@pytest.mark.parametrize("name", ["abrupt", "gradual", "errors"])
def test_restarts_as_river_does(name):
    follow(SEQUENCES[name], SETTINGS["default"], restart=True)


def follow(values, settings, *, restart):
    ours, theirs = Adwin(**settings, restart=restart), drift.ADWIN(**settings)
    state = ours.initial()
    for index, value in enumerate(values):
        theirs.update(value)
        found = ours.update(state, value)
        assert found == theirs.drift_detected, index
        if found or index % 20 == 0:
            assert ours.width(state) == theirs.width, index
            assert ours.estimate(state) == pytest.approx(theirs.estimation, rel=1e-9, abs=1e-12)
        if not restart:
            theirs._drift_detected = False  # river empties its window after a change; the paper does not


def test_the_sequences_test_something():
    found = dict.fromkeys(SEQUENCES, 0)
    for name, values in SEQUENCES.items():
        detector = Adwin()
        state = detector.initial()
        found[name] = sum([detector.update(state, value) for value in values])
    assert found["abrupt"] and found["gradual"] > 10 and found["errors"]
    assert not found["stationary"] and not found["constant"]


def test_window_of_the_last_values():
    """The estimate is the mean of exactly the last `width` values."""
    detector = Adwin(clock=1)
    state = detector.initial()
    values = SEQUENCES["abrupt"][:1100]
    for count, value in enumerate(values, 1):
        found = detector.update(state, value)
        if not found and count % 10:
            continue
        last = values[count - detector.width(state) : count]
        assert detector.estimate(state) == pytest.approx(math.fsum(last) / len(last), abs=1e-9)
    assert detector.width(state) < 200


def test_window_of_many_values_takes_no_more():
    """A window that stands for 2^40 values goes on in the same memory: buckets of the top rows merge into the next."""
    detector = Adwin(max_buckets=2)
    state = detector.initial()
    for _ in range(3000):
        detector.update(state, 1.0)
    rows = state[5:].view(60, -1)
    shifted = torch.zeros_like(rows)
    shifted[30:] = rows[:30]
    shifted[30:, 1::2] *= 2.0**30  # sums of 2^30 times as many values, all 1
    grown = torch.cat([state[:5], shifted.flatten()])
    grown[:2] *= 2.0**30
    for _ in range(2000):
        assert not detector.update(grown, 1.0)
    assert detector.width(grown) == 3000 * 2**30 + 2000
    assert detector.estimate(grown) == 1.0
    assert detector.update(grown, -1e12) is False and detector.estimate(grown) < 1.0


def test_state_in_a_table():
    """Undone, reset and resumed bit for bit; the same values find the same change again."""
    detector = detectors.build("adwin")
    table = Table()
    state = table.declare("drift", detector.initial(), initial=0.0, kind="memory", merge="first")
    values = SEQUENCES["abrupt"]
    for value in values[:900]:
        detector.update(state, value)
    before = table.snapshot()
    first = [detector.update(state, value) for value in values[900:]]
    after = state.clone()
    table.restore(before)
    assert [detector.update(state, value) for value in values[900:]] == first and any(first)
    assert torch.equal(state, after)
    table.reset()
    assert torch.equal(state, detector.initial())


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_refuses_a_broken_value_and_keeps_its_state(broken):
    detector = Adwin()
    state = detector.initial()
    detector.update(state, 3.0)
    before = state.clone()
    with pytest.raises(ValueError, match="finite"):
        detector.update(state, broken)
    assert torch.equal(state, before)


def test_refuses_states_and_settings_that_are_not_its_own():
    with pytest.raises(ValueError, match="expected"):
        Adwin(max_buckets=3).update(Adwin().initial(), 1.0)
    with pytest.raises(ValueError, match="float64"):
        Adwin().update(Adwin().initial().float(), 1.0)
    for settings in ({"delta": 0.0}, {"delta": 1.0}, {"clock": 0}, {"max_buckets": 1}, {"min_window_length": 0}):
        with pytest.raises(ValueError):
            Adwin(**settings)
