"""Page-Hinkley, held to river's, and to sums written out."""

from __future__ import annotations

import pytest
import torch
from river import drift

from acclimate.guard.detectors.detector import detectors
from acclimate.guard.detectors.page_hinkley import PageHinkley
from guard.sequences import sequences

SETTINGS = {
    "default": {},
    "quick": {"threshold": 5.0},
    "up": {"threshold": 3.0, "mode": "up", "alpha": 0.99, "min_instances": 10},
    "down": {"threshold": 3.0, "mode": "down", "delta": 0.1, "min_instances": 1},
}
SEQUENCES = sequences()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("values", SEQUENCES.values(), ids=SEQUENCES)
def test_finds_what_river_finds(values, settings):
    ours, theirs = PageHinkley(**settings), drift.PageHinkley(**settings)
    state = ours.initial()
    for index, value in enumerate(values):
        theirs.update(value)
        assert ours.update(state, value) == theirs.drift_detected, index


def test_first_change_is_where_the_sums_say():
    """Without fading, the sums up to t are those of `x_i - mean(x_1..x_i)`, less or more delta."""
    values = torch.tensor(SEQUENCES["abrupt"], dtype=torch.float64)
    means = values.cumsum(0) / torch.arange(1, len(values) + 1)
    rise = (values - means - 0.1).cumsum(0)
    above = rise - rise.cummin(0).values.clamp_max(0)
    expected = int((above > 20).nonzero()[0])
    detector = PageHinkley(threshold=20.0, delta=0.1, alpha=1.0, mode="up")
    state = detector.initial()
    found = [index for index, value in enumerate(values.tolist()) if detector.update(state, value)]
    assert found[0] == expected > 1000


def test_direction():
    """What rises is no fall: one-sided tests see their own side only."""
    rising = [0.0] * 100 + [1.0] * 100
    for mode, values, finds in (
        ("up", rising, True),
        ("down", rising, False),
        ("down", [-v for v in rising], True),
        ("up", [-v for v in rising], False),
    ):
        detector = detectors.build({"name": "page-hinkley", "mode": mode, "threshold": 10.0})
        state = detector.initial()
        assert any(detector.update(state, value) for value in values) == finds


def test_refuses_settings():
    for settings in ({"min_instances": 0}, {"delta": -1.0}, {"alpha": 1.5}, {"mode": "sideways"}, {"threshold": -1.0}):
        with pytest.raises(ValueError):
            PageHinkley(**settings)
