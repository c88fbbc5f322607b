"""The model of latency: by hand, and against the seconds that were published."""

from __future__ import annotations

import pytest

from acclimate.fields.diffusion.cost import SHAPES, Device, ModelShape, break_even, latency
from acclimate.fields.diffusion.cost.published import CAPPED, CAPS, FLUX_L20, calibrated, capped, claims, predicted

TINY = ModelShape(name="tiny", layers=2, channels=8, stretches=(16,), steps=3)


def test_it_is_the_sum_of_its_parts() -> None:
    device = Device(alone=8.0, bandwidth=1000.0, codec=0.5, delay=0.01)
    whole = 16 // 4 * 8 * 2
    packet = 4 * 8 // 4 + 2 * (4 + 8)
    exact = 8 / 4 + 2 * 2 * 3 * 3 * whole / 1000 + 2 * 3 * 0.01
    assert latency(TINY, 4, device) == pytest.approx(exact)
    coded = 8 / 4 + 0.5 + 2 * 2 * 3 * (whole + 2 * packet) / 1000 + 2 * 3 * 0.01
    assert latency(TINY, 4, device, "two_bit", exchange="ring") == pytest.approx(coded)
    assert latency(TINY, 1, device) == 8.0
    assert break_even(TINY, 4, "two_bit", 1000.0) == pytest.approx((whole - packet) * 3 / 1000)


def test_coding_for_just_the_break_even_gains_and_loses_nothing() -> None:
    shape = SHAPES["flux.1-dev"]
    spent = break_even(shape, 4, "two_bit", 1e10) * 2 * shape.layers * (shape.steps - shape.warmup)
    device = Device(alone=20.0, bandwidth=1e10, codec=spent)
    assert latency(shape, 4, device, "two_bit") == pytest.approx(latency(shape, 4, device))


def test_the_seconds_that_the_abstract_rests_on() -> None:
    three, six = claims()
    assert three.measured == pytest.approx(3.06, abs=0.005) and three.modelled == pytest.approx(3.0, abs=0.05)
    assert six.measured == pytest.approx(6.68, abs=0.005) and six.modelled == pytest.approx(6.7, rel=0.03)


def test_rows_that_the_calibration_did_not_see_are_predicted() -> None:
    device = calibrated()
    assert device.codec / (57 * 28) < 1e-3  # the budget of about a millisecond an exchange
    for row, within in (("two_bit", 0.03), ("patch", 0.01), ("ulysses", 0.10)):
        assert predicted(row, device) == pytest.approx(FLUX_L20[row], rel=within), row


@pytest.mark.parametrize("row", ["ring", "patch", "ulysses", "distrifusion", "one_bit", "two_bit"])
def test_runs_under_the_lowest_limit_are_predicted(row: str) -> None:
    assert predicted(row, capped(CAPS[0])) == pytest.approx(CAPPED[row][0], rel=0.07)


def test_orders_of_methods_hold_under_every_limit() -> None:
    for limit in CAPS:
        found = [predicted(row, capped(limit)) for row in ("one_bit", "two_bit", "ulysses", "ring")]
        assert found == sorted(found)


def test_devices_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="bandwidth"):
        Device(alone=1.0, bandwidth=0.0)
    with pytest.raises(ValueError, match="codec"):
        Device(alone=1.0, bandwidth=1.0, codec=-1.0)
