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
    for change in ({"value": "x"}, {"value": 1.5}, {"kept": -1}, {"error": None}):
        with pytest.raises(ValueError, match="must"):
            Threshold.from_dict({**found.to_dict(), **change})


def two(random: np.random.Generator, first: int, second: int, wrong: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two laboratories; confidence says nothing, and answers are wrong with chance 0.5 % and `wrong`."""
    top = random.uniform(0.8, 1, first + second)
    labels = random.random(first + second) < np.r_[np.full(first, 0.005), np.full(second, wrong)]
    return np.stack([top, 1 - top], 1), labels.astype(int), ["a"] * first + ["b"] * second


def test_the_promise_holds_in_each_laboratory_or_names_those_it_does_not_reach() -> None:
    """A pooled bound would be met by most of these draws, though every third answer is wrong in one laboratory."""
    random = np.random.default_rng(0)
    pooled = large = small = 0
    for _ in range(60):
        probabilities, labels, names = two(random, 1400, 120, 0.3)
        pooled += calibrate(probabilities, labels).value is not None
        large += calibrate(probabilities, labels, laboratories=names).value is not None
        probabilities, labels, names = two(random, 380, 20, 0.3)
        found = calibrate(probabilities, labels, laboratories=names)
        small += found.value is not None
        assert [(part.name, part.covered) for part in found.parts] == [("a", True), ("b", False)]
    assert pooled > 50 and large == 0 and small > 50


def test_the_threshold_is_the_strictest_that_a_laboratory_needs() -> None:
    """Alike but for confidence: `b` errs below 0.8, `a` never does."""
    top = np.tile(np.linspace(0.5, 1, 400), 2)
    wrong = np.r_[np.zeros(400, dtype=bool), (np.arange(400) % 2 == 0) & (top[:400] < 0.8)]
    names = ["a"] * 400 + ["b"] * 400
    found = calibrate(np.stack([top, 1 - top], 1), wrong.astype(int), laboratories=names)
    (alone,) = calibrate(np.stack([top, 1 - top], 1)[:400], wrong[:400].astype(int)).parts
    assert alone.kept == 400 and found.value is not None and 0.7 < found.value < 0.81
    assert [part.kept for part in found.parts] == [int((top[:400] >= found.value).sum())] * 2
    assert found.bound == max(part.bound for part in found.parts) <= 0.05
    for part in found.parts:
        assert part.bound == upper_bound(part.wrong, part.kept, 1 - 0.05 / 20)


@pytest.mark.parametrize("error", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_so_many_cells_are_needed_and_no_fewer(error: float, count: int) -> None:
    names = [f"{place}" for place in range(count)]
    needed = next(n for n in range(1, 500) if stats.beta.ppf(1 - 0.05 / (10 * count), 1, n) <= error)
    for cells, kept in ((needed, True), (needed - 1, False)):
        found = calibrate([[1.0, 0.0]] * cells * count, [0] * cells * count, error=error, laboratories=names * cells)
        assert (found.value is not None, found.needed) == (kept, needed)
        assert all(part.covered == kept for part in found.parts)
    with pytest.raises(ValueError, match="1 names of laboratories for 2 cells"):
        calibrate([[1.0, 0.0]] * 2, [0, 0], laboratories=["a"])


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


@settings(max_examples=30, deadline=None)
@given(some.integers(1, 60), some.integers(2, 4), some.integers(0, 1000))
def test_temperature_is_the_minimum_of_its_formula(cells: int, classes: int, seed: int) -> None:
    """Against a fine grid, in float64, of -sum log p_y(T) + (log T / 0.5)^2 / 2."""
    random = np.random.default_rng(seed)
    said = random.dirichlet(np.ones(classes), cells).clip(1e-6)
    said /= said.sum(1, keepdims=True)
    labels = np.where(random.random(cells) < 0.8, said.argmax(1), random.integers(0, classes, cells))
    logs = np.linspace(-3, 3, 6001)
    scaled = said[None] ** (1 / np.exp(logs))[:, None, None]
    right = np.log(scaled[:, np.arange(cells), labels] / scaled.sum(2)).sum(1)
    loss = -right + (logs / 0.5) ** 2 / 2
    assert np.log(Temperature.fit(said, labels).value) == pytest.approx(logs[loss.argmin()], abs=2e-3)


def test_a_dozen_right_answers_do_not_make_all_certain() -> None:
    """Without the prior any sharpening is an improvement; with it, evidence is weighed: 12 cells, then 1200."""
    said, labels = [[0.7, 0.3]] * 8 + [[0.35, 0.65]] * 4, [0] * 8 + [1] * 4
    few = Temperature.fit(said, labels)
    assert 0.3 < few.value < 0.8 and not few.at_bound
    assert few.apply([[0.55, 0.45]])[0, 0] < 0.7
    many = Temperature.fit(said * 100, labels * 100)
    assert many.value < 0.2
    assert Temperature(np.exp(-3)).at_bound and Temperature(np.exp(3)).at_bound and not Temperature(1).at_bound


def test_temperature_bears_certainty_that_is_wrong() -> None:
    found = Temperature.fit([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 1])
    assert found.value > 2
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
