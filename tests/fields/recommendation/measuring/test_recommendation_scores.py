from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from acclimate.fields.recommendation.measuring.diversity import diversity
from acclimate.fields.recommendation.measuring.paired import paired_gain, paired_gains
from acclimate.fields.recommendation.measuring.scores import auc, scores, weighted_auc


def drawn(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows).astype(float)
    labels[:2] = (0, 1)
    return random.normal(size=rows) * 3 + labels, labels


@given(st.integers(2, 60), st.integers(0, 10**6), st.booleans())
def test_auc_and_log_loss_are_those_of_scikit_learn(rows: int, seed: int, ties: bool) -> None:
    logits, labels = drawn(rows, seed)
    if ties:
        logits = logits.round()
    found = scores(logits, labels)
    assert found.auc == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    assert found.log_loss == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-logits))), rel=1e-9)


def test_weights_are_repetitions_of_rows() -> None:
    logits, labels = drawn(40, 3)
    logits = logits.round(1)
    weights = np.random.default_rng(1).integers(0, 4, (5, 40)).astype(float)
    for each, found in zip(weights, weighted_auc(logits, labels, weights), strict=True):
        often = each.astype(int)
        assert found == pytest.approx(roc_auc_score(np.repeat(labels, often), np.repeat(logits, often)), abs=1e-12)


def test_log_loss_is_cut_and_calibration_is_told() -> None:
    far = scores([100.0, -100.0], [0, 1])
    assert far.log_loss == pytest.approx(-np.log(1e-7), rel=1e-6)
    labels = np.tile([1, 0, 0, 0], 1000)
    right = scores(np.full(4000, np.log(1 / 3)), labels)
    assert right.ratio == pytest.approx(1) and right.calibration_error < 0.01
    double = scores(np.full(4000, 0.0), labels)
    assert double.ratio == pytest.approx(2) and double.calibration_error == pytest.approx(0.25, abs=0.01)


def test_bad_scores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"row 1 is nan"):
        auc([0.0, float("nan")], [0, 1])
    with pytest.raises(ValueError, match="all 2 labels are 1"):
        auc([0.0, 1.0], [1, 1])
    with pytest.raises(ValueError, match=r"expected 0 and 1"):
        auc([0.0, 1.0], [1, 2])
    with pytest.raises(ValueError, match=r"logits \[2\] and labels \[3\]"):
        auc([0.0, 1.0], [1, 0, 1])


def test_an_interval_holds_the_difference_that_there_is() -> None:
    """Of 60 samples, close to 95 % of the intervals hold what the distribution has."""
    random = np.random.default_rng(0)

    def sample(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = (random.random(rows) < 0.3).astype(float)
        signal = labels * 1.2
        return signal + random.normal(size=rows), signal + 1.5 * random.normal(size=rows), labels

    large = sample(400_000)
    truth = paired_gain(*large, resamples=100)
    assert truth.better and truth.auc.real
    held = 0
    for _ in range(60):
        found = paired_gain(*sample(500), resamples=200).auc
        held += found.low <= truth.auc.value <= found.high
    assert held >= 50


def test_a_gain_over_itself_is_nothing() -> None:
    logits, labels = drawn(300)
    found = paired_gain(logits, logits, labels)
    assert (found.auc.value, found.auc.low, found.auc.high) == (0, 0, 0)
    assert not found.better and not found.log_loss.real
    sure = paired_gain(logits + 2 * labels, logits, labels)
    assert sure.better and str(sure.auc).startswith("+")
    assert paired_gain(logits, logits + 2 * labels, labels).auc.value == -sure.auc.value


def test_members_differ_as_the_formulas_say() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 500)
    z = random.normal(size=(3, 500)) + labels
    p = 1 / (1 + np.exp(-z))
    pairs = [(0, 1), (0, 2), (1, 2)]
    found = diversity(z, labels)
    assert found.correlation == pytest.approx(np.mean([np.corrcoef(z[a], z[b])[0, 1] for a, b in pairs]))
    assert found.distance == pytest.approx(np.mean([abs(p[a] - p[b]).mean() for a, b in pairs]))
    assert found.disagreement == pytest.approx(np.mean([((p[a] > 0.5) != (p[b] > 0.5)).mean() for a, b in pairs]))
    merged = 1 / (1 + np.exp(-z.mean(0)))
    assert found.gain == pytest.approx(np.mean([log_loss(labels, each) for each in p]) - log_loss(labels, merged))
    assert found.gain > 0
    with pytest.raises(ValueError, match="two members"):
        diversity(z[:1], labels)


def test_calibration_does_not_depend_on_the_order_of_ties() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.integers(-2, 3, 500).astype(float), random.integers(0, 2, 500).astype(float)
    found = scores(logits, labels).calibration_error
    for _ in range(5):
        order = random.permutation(500)
        assert scores(logits[order], labels[order]).calibration_error == pytest.approx(found, abs=1e-12)
    values, place = np.unique(logits, return_inverse=True)
    share = np.array([labels[place == each].mean() for each in range(len(values))])
    probability = np.sort(1 / (1 + np.exp(-logits)))
    clicked = share[np.sort(place)]
    gaps = [abs(probability[k : k + 50].mean() - clicked[k : k + 50].mean()) for k in range(0, 500, 50)]
    assert found == pytest.approx(np.mean(gaps))


def test_the_interval_of_a_mean_over_seeds() -> None:
    """Draws are those of the same rows for all seeds: opposite gains cancel in each, and equal ones are one."""
    logits, labels = drawn(300)
    other = logits - 0.5 * labels
    mean, each = paired_gains([logits, other], [other, logits], labels)
    assert mean.auc.value == mean.auc.low == mean.auc.high == 0
    assert abs(mean.log_loss.low) < 1e-12 and abs(mean.log_loss.high) < 1e-12
    assert each[0] == paired_gain(logits, other, labels) and each[0].auc.low > 0 > each[1].auc.high
    twice = paired_gain([logits, logits], [other, other], labels)
    assert twice.auc.low == pytest.approx(each[0].auc.low) and twice.log_loss.high == pytest.approx(
        each[0].log_loss.high
    )
    with pytest.raises(ValueError, match="expected \\[S, N\\] of both"):
        paired_gain([logits, logits], other, labels)
