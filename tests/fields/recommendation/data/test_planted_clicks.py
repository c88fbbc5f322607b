"""Planted interactions are where they are said to be, and the bounds are those of the drawn odds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from acclimate.fields.recommendation.data.planted import PlantedClicks, planted


def numbers(made: PlantedClicks) -> np.ndarray:
    return made.clicks.ids.numpy() - np.array(made.clicks.offsets)


def logits(made: PlantedClicks) -> np.ndarray:
    p = made.probability.numpy()
    return np.log(p / (1 - p))


def explained(target: np.ndarray, *columns: np.ndarray) -> float:
    """The share of variance that a free table over these columns explains, unbiased by its number of cells."""
    key = np.unique(np.stack(columns), axis=1, return_inverse=True)[1].reshape(-1)
    counts = np.bincount(key)
    means = np.bincount(key, target) / counts
    inside = ((target - means[key]) ** 2).sum() / (len(target) - len(counts))
    return 1 - inside / target.var(ddof=1)


def test_bounds_are_those_of_the_definition() -> None:
    """Over all pairs, one by one."""
    made = planted(300, seed=3)
    p = made.probability.numpy()
    pairs = p[:, None] * (1 - p[None, :])
    np.fill_diagonal(pairs, 0)
    order = (p[:, None] > p[None, :]) + 0.5 * (p[:, None] == p[None, :])
    assert made.auc == pytest.approx((pairs * order).sum() / pairs.sum(), abs=1e-12)
    assert made.log_loss == pytest.approx(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean(), abs=1e-12)


def test_drawn_labels_reach_the_bounds() -> None:
    made = planted(60_000, seed=1)
    labels, p = made.clicks.labels.numpy(), made.probability.numpy()
    assert roc_auc_score(labels, p) == pytest.approx(made.auc, abs=0.006)
    assert log_loss(labels, p) == pytest.approx(made.log_loss, abs=0.006)
    assert labels.mean() == pytest.approx(p.mean(), abs=0.008)


def test_equal_odds_rank_nothing() -> None:
    made = planted(500, second=0, third=0, bias=1.0)
    assert made.auc == pytest.approx(0.5)
    assert np.allclose(made.probability, 1 / (1 + np.exp(-1)))


def test_pairs_and_triples_and_nothing_below_them() -> None:
    made = planted(200_000, fields=3, values=4, seed=2, second=0)
    z, x = logits(made), numbers(made).T
    assert explained(z, x[0], x[1], x[2]) > 0.999
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(explained(z, x[one], x[other])) < 0.005
    made = planted(200_000, fields=3, values=4, seed=2, third=0)
    z, x = logits(made), numbers(made).T
    assert explained(z, x[0], x[1]) > 0.999
    for field in range(3):
        assert abs(explained(z, x[field])) < 0.005


def test_strengths_are_standard_deviations() -> None:
    assert logits(planted(100_000, fields=7, seed=4, second=2.0, third=0)).std() == pytest.approx(2, rel=0.02)
    assert logits(planted(100_000, fields=7, seed=4, second=0, third=0.5)).std() == pytest.approx(0.5, rel=0.02)


def test_drift_rotates_the_tables() -> None:
    """By 60 degrees: the logit of the same values correlates with the first by cos 60, then by cos 120."""
    made = planted(120_000, fields=3, values=3, seed=5, third=0, drift=(40_000, 80_000), angle=60.0)
    z, x = logits(made), numbers(made)
    key = x[:, 0] * 3 + x[:, 1]
    tables = [
        np.array([z[start : start + 40_000][key[start : start + 40_000] == k].mean() for k in range(9)])
        for start in (0, 40_000, 80_000)
    ]
    spread = [np.ptp(z[start : start + 40_000][key[start : start + 40_000] == 4]) for start in (0, 40_000, 80_000)]
    assert max(spread) < 1e-9, "within a stretch the odds of a pair stay"
    first, second, third = tables
    assert np.allclose(third, 2 * np.cos(np.radians(60)) * second - first), "three turns lie on one circle"
    assert not np.allclose(first, second, atol=0.1)
    still = planted(120_000, fields=3, values=3, seed=5, third=0)
    assert np.array_equal(made.probability[:40_000], still.probability[:40_000])


def test_seeds_and_sizes() -> None:
    one, same, other = planted(200, seed=1), planted(200, seed=1), planted(200, seed=2)
    assert one.clicks.fingerprint() == same.clicks.fingerprint() != other.clicks.fingerprint()
    assert planted(10, fields=4, values=5).clicks.sizes == (6,) * 4
    assert (numbers(planted(5000, values=5)) < 5).all(), "no row has the id of other values"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"rows": 0}, "rows must be"),
        ({"fields": 2}, "fields must be a whole number of at least 3"),
        ({"values": 1}, "values must be"),
        ({"second": -1.0}, "second must be at least 0"),
        ({"third": float("nan")}, "third must be at least 0"),
        ({"bias": float("inf")}, "must be finite"),
        ({"drift": (5, 5)}, "expected ascending rows between 1 and 9"),
        ({"drift": (10,)}, "expected ascending rows between 1 and 9"),
        ({"drift": (0,)}, "expected ascending rows between 1 and 9"),
    ],
)
def test_bad_arguments(given: dict, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        planted(**{"rows": 10, **given})
