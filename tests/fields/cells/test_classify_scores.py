"""Scores against scikit-learn and by hand, intervals against a bootstrap of single cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from acclimate.fields.cells.classify.scores import NUMBERS, interval, scores

metrics = pytest.importorskip("sklearn.metrics")

Pairs = list[tuple[int, int]]
PAIRS = some.lists(some.tuples(some.integers(0, 4), some.integers(0, 4)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_as_scikit_learn_over_classes_in_the_truth(pairs: Pairs) -> None:
    predicted, true = np.array(pairs).T
    found, present = scores(predicted, true, 5), sorted(set(true.tolist()))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, predicted), abs=1e-12)
    f1 = metrics.f1_score(true, predicted, labels=present, average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(f1, abs=1e-12)
    recall = metrics.recall_score(true, predicted, labels=present, average=None, zero_division=0)
    assert found.recall[present] == pytest.approx(recall, abs=1e-12)
    assert np.isnan(np.delete(found.recall, present)).all()
    assert found.balanced_accuracy == pytest.approx(recall.mean(), abs=1e-12)
    assert (found.confusion == metrics.confusion_matrix(true, predicted, labels=range(5))).all()


def test_by_hand() -> None:
    # class 0: 2 cells, 1 right, 1 taken for 2. class 1: 2 cells, both right. Class 2 is in no truth.
    found = scores([0, 2, 1, 1], [0, 0, 1, 1], 3)
    assert (found.accuracy, found.balanced_accuracy) == (0.75, 0.75)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1) / 2)
    assert found.confusion.tolist() == [[1, 0, 1], [0, 2, 0], [0, 0, 0]]


def test_always_the_same_answer_has_a_high_accuracy_and_a_low_f1() -> None:
    true = np.repeat([0, 1], [90, 10])
    found = scores(np.zeros(100, dtype=int), true, 2)
    assert (found.accuracy, found.balanced_accuracy) == (0.9, 0.5)
    assert found.macro_f1 == pytest.approx(180 / 190 / 2)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_interval_is_that_of_drawing_single_cells(number: str) -> None:
    random = np.random.default_rng(3)
    true = random.integers(0, 3, 97)
    predicted = np.where(random.random(97) < 0.7, true, random.integers(0, 3, 97))
    drawn = [
        getattr(scores(predicted[rows], true[rows], 3), number) for rows in random.integers(0, 97, size=(2000, 97))
    ]
    low, high = interval(predicted, true, 3, number, resamples=4000, level=0.9)
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=0.012)
    assert low < getattr(scores(predicted, true, 3), number) < high
    assert (low, high) == interval(predicted, true, 3, number, resamples=4000, level=0.9)
    wide = interval(predicted, true, 3, number, resamples=4000, level=0.99)
    assert wide[0] < low and high < wide[1]


def test_the_interval_of_a_share_covers_it_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        wrong = (random.random(200) < 0.3).astype(int)
        low, high = interval(wrong, np.zeros(200, dtype=int), 2, "accuracy", resamples=300, level=0.9)
        hits += low <= 0.7 <= high
    assert 0.84 < hits / 300 < 0.96  # 0.9 give or take 3.5 standard errors


def test_what_is_refused() -> None:
    for arguments, message in (
        (([], [], 2), "no cells"),
        (([0], [0, 1], 2), "1 labels for 2 cells"),
        (([0, 2], [0, 1], 2), r"2 for one; expected 0\.\.1"),
        (([0.5, 1.0], [0, 1], 2), "whole numbers"),
        (([0], [0], 0), "classes must be"),
    ):
        with pytest.raises(ValueError, match=message):
            scores(*arguments)
    with pytest.raises(ValueError, match="number must be one of"):
        interval([0], [0], 2, "luck")
    with pytest.raises(ValueError, match="level is 95"):
        interval([0], [0], 2, level=95)
