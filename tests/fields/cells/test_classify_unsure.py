"""The unsure flag keeps its promise over repeated calibrations; temperature finds the truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from acclimate.fields.cells.classify.unsure import Temperature, Threshold, calibrate, upper_bound

stats = pytest.importorskip("scipy.stats")


def world(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two classes; an answer of confidence c is right with probability c, so that the truth is known."""
    top = random.uniform(0.6, 1, count)
    predicted = random.integers(0, 2, count)
    probabilities = np.where(np.arange(2) == predicted[:, None], top[:, None], 1 - top[:, None])
    right = random.random(count) < top
    return probabilities, np.where(right, predicted, 1 - predicted)


@settings(max_examples=40, deadline=None)
@given(some.integers(1, 300), some.floats(0, 1), some.floats(0.5, 0.999))
def test_the_bound_is_the_share_at_which_so_few_errors_are_as_rare_as_stated(
    kept: int, share: float, confidence: float
) -> None:
    wrong = int(share * kept)
    bound = upper_bound(wrong, kept, confidence)
    if wrong == kept:
        assert bound == 1
    else:
        assert stats.binom.cdf(wrong, kept, bound) == pytest.approx(1 - confidence, abs=1e-8)


def test_among_kept_answers_few_are_wrong_in_nearly_every_calibration() -> None:
    """The error above a threshold t is (1 - t) / 2, since confidences are uniform up to 1."""
    random = np.random.default_rng(0)
    found = [calibrate(*world(3000, random), error=0.1, confidence=0.9) for _ in range(200)]
    values = [threshold.value for threshold in found if threshold.value is not None]
    assert len(values) > 190
    broken = sum((1 - max(value, 0.6)) / 2 > 0.1 for value in values)
    assert broken / 200 < 0.1 + 0.07  # 3.3 standard errors above the promise
    assert np.median(values) < 0.95  # and the promise is not kept by throwing everything away


def test_the_lowest_threshold_that_holds_is_chosen_and_says_what_it_saw() -> None:
    random = np.random.default_rng(1)
    probabilities, labels = world(2000, random)
    found = calibrate(probabilities, labels, error=0.1)
    kept = ~found.unsure(probabilities)
    wrong = kept & (probabilities.argmax(1) != labels)
    assert (found.kept, found.wrong, found.cells) == (kept.sum(), wrong.sum(), 2000)
    assert found.wrong / found.kept < found.bound <= 0.1
    top = np.sort(probabilities.max(1))[::-1]
    more = top >= top[found.kept + 199]
    errors = (probabilities.argmax(1) != labels)[probabilities.max(1) >= top[found.kept + 199]].sum()
    assert upper_bound(int(errors), int(more.sum()), 0.995) > 0.1


def test_a_threshold_keeps_cells_that_reach_it() -> None:
    sure = np.tile([0.9, 0.1], (200, 1))
    found = calibrate(sure, np.zeros(200, dtype=int))
    assert found.value == 0.9 and found.kept == 200 and found.wrong == 0
    assert found.unsure([[0.9, 0.1], [0.2, 0.8], [0.05, 0.95]]).tolist() == [False, True, False]


def test_too_few_cells_or_too_many_errors_leave_everything_unsure() -> None:
    few = calibrate(np.tile([1.0, 0.0], (100, 1)), np.zeros(100, dtype=int))  # 104 are needed: 0.95^n <= 0.005
    assert few.value is None and few.bound == 1 and few.unsure([[1.0, 0.0]]).all()
    assert calibrate(np.tile([1.0, 0.0], (104, 1)), np.zeros(104, dtype=int)).value == 1
    assert calibrate(np.tile([1.0, 0.0], (500, 1)), np.arange(500) % 2).value is None


def test_a_threshold_survives_json() -> None:
    for found in (calibrate(*world(900, np.random.default_rng(0)), error=0.2), calibrate([[0.5, 0.5]], [0])):
        assert Threshold.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(ValueError, match="This is no threshold"):
        Threshold.from_dict({"value": 0.5})


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_temperature_is_found_again(true: float) -> None:
    random = np.random.default_rng(4)
    logits = random.normal(size=(20000, 4)) * 2
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (honest.cumsum(1) < random.random((20000, 1))).sum(1)
    claimed = honest**true
    claimed /= claimed.sum(1, keepdims=True)
    found = Temperature.fit(claimed, labels)
    assert found.value == pytest.approx(true, rel=0.04)
    np.testing.assert_allclose(found.apply(claimed), honest, atol=0.02)


@settings(max_examples=40, deadline=None)
@given(some.lists(some.floats(0.001, 1), min_size=3, max_size=3), some.floats(0.1, 10))
def test_temperature_is_the_formula_and_keeps_the_answer(weights: list[float], value: float) -> None:
    p = np.array([weights]) / sum(weights)
    expected = p ** (1 / value) / (p ** (1 / value)).sum()
    np.testing.assert_allclose(Temperature(value).apply(p), expected, atol=1e-5)


def test_temperature_bears_certainty_that_is_wrong() -> None:
    found = Temperature.fit([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 1])
    assert found.value > 5
    assert Temperature.fit([[0.9, 0.1]] * 9, [0] * 9).value < 0.1
    assert Temperature.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_what_is_refused() -> None:
    for arguments, message in (
        (([[0.5, 0.5]], [2]), "out of range"),
        (([[0.5, 0.5]], [0, 1]), "2 labels for 1 cells"),
        (([[float("nan"), 0.5]], [0]), "no probabilities"),
        ((np.empty((0, 2)), []), "no held-out cells"),
        (([0.5, 0.5], [0]), r"expected \[N, C\]"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate(*arguments)
        with pytest.raises(ValueError, match=message):
            Temperature.fit(*arguments)
    with pytest.raises(ValueError, match="error is 5"):
        calibrate([[0.5, 0.5]], [0], error=5)
    with pytest.raises(ValueError, match="temperature must be"):
        Temperature(0)
