"""Label orders against what a Dirichlet distribution promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.streams.label_orders import correlated_order, sorted_order

BALANCED = np.repeat(np.arange(10), 100)


def window_entropy(labels: np.ndarray, width: int = 100) -> float:
    """Mean entropy of the labels in windows, in nats, by its definition."""
    entropies = []
    for start in range(0, len(labels), width):
        shares = np.unique(labels[start : start + width], return_counts=True)[1] / width
        entropies.append(-(shares * np.log(shares)).sum())
    return float(np.mean(entropies))


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), max_size=60),
    concentration=st.sampled_from([1e-4, 0.01, 0.1, 1.0, 100.0]),
    seed=st.integers(0, 5),
)
def test_orders_are_permutations_and_pure(labels: list[int], concentration: float, seed: int):
    array = np.array(labels, dtype=np.int64)
    order = correlated_order(array, concentration, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    assert order.tolist() == correlated_order(array, concentration, np.random.default_rng(seed)).tolist()
    assert array[sorted_order(array)].tolist() == sorted(labels)


def test_small_concentrations_correlate_and_large_ones_do_not():
    found = {
        delta: np.mean(
            [window_entropy(BALANCED[correlated_order(BALANCED, delta, np.random.default_rng(s))]) for s in range(5)]
        )
        for delta in (0.01, 0.1, 1.0, 1e4)
    }
    assert found[0.01] < found[0.1] < found[1.0] < found[1e4]
    assert found[0.01] < 0.6, "about one or two classes in a tenth of the data"
    assert found[1e4] > 0.97 * np.log(10), "a chunk holds nearly equal shares of all classes"


def test_no_label_is_lost_when_shares_are_extreme():
    """With a tiny concentration all shares but one are zero in float64, and chunks with room must still be found."""
    order = correlated_order(BALANCED, 1e-6, np.random.default_rng(0))
    assert np.bincount(BALANCED[order]).tolist() == [100] * 10


def test_classes_stay_together_inside_a_chunk():
    """Changes of label between neighbours are at most classes times chunks, whatever the concentration."""
    for delta in (0.01, 1.0, 100.0):
        labels = BALANCED[correlated_order(BALANCED, delta, np.random.default_rng(1))]
        assert np.count_nonzero(np.diff(labels)) < 10 * 10


@pytest.mark.parametrize("labels", [[], [3], [2, 2, 2]])
def test_few_labels(labels: list[int]):
    array = np.array(labels, dtype=np.int64)
    assert sorted(correlated_order(array, 0.1, np.random.default_rng(0)).tolist()) == list(range(len(labels)))
