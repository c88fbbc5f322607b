"""The accuracy guessed from agreement, against the formula written out and where it must end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acclimate.guard.agreement import estimated_accuracy


def written_out(logits: np.ndarray, other: np.ndarray, exponent: float) -> float:
    rows, classes = logits.shape
    answers = np.exp(logits - logits.max(1, keepdims=True))
    mean = (answers / answers.sum(1, keepdims=True)).mean(0)
    spread = -sum(p * np.log(p) for p in mean if p > 0) / np.log(min(rows, classes))
    differing = (sum(a.argmax() != b.argmax() for a, b in zip(logits, other, strict=True)) + 0.5) / (rows + 1)
    return max(0.0, 1 - differing / min(spread, 1.0) ** exponent)


@pytest.mark.parametrize(("rows", "classes"), [(2, 10), (7, 3), (64, 10), (200, 100)])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 3.0])
def test_is_the_formula(rows, classes, exponent):
    draw = np.random.default_rng(rows)
    logits = 4 * draw.normal(size=(rows, classes)) + np.linspace(0, 2, classes)
    other = logits + draw.normal(size=(rows, classes))
    found = estimated_accuracy(torch.from_numpy(logits), torch.from_numpy(other), exponent=exponent)
    assert found == pytest.approx(written_out(logits, other, exponent), abs=1e-12)
    single = estimated_accuracy(torch.from_numpy(logits).float(), torch.from_numpy(other).float(), exponent=exponent)
    assert single == pytest.approx(found, abs=1e-4)


def test_limits():
    """Agreement over all classes tends to 1 as rows grow; disagreement to 0; one class is 0 even in full agreement."""
    answers = 50 * torch.eye(10)
    shares = [estimated_accuracy(z, z) for z in (answers.repeat(times, 1) for times in (1, 10, 1000))]
    assert shares == sorted(shares) and shares[0] > 0.9 and shares[-1] > 0.9999
    assert estimated_accuracy(answers.repeat(100, 1), answers.roll(1, 0).repeat(100, 1)) < 0.001
    one = answers[:1].repeat(500, 1)
    assert estimated_accuracy(one, one) == 0
    assert estimated_accuracy(1e4 * one, 1e4 * one) == 0


def test_falls_with_disagreement_and_with_concentration():
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (400,), generator=draw)
    answers = 10 * torch.eye(10)
    others = [labels.clone() for _ in range(4)]
    for share, other in enumerate(others):
        other[: 40 * share] += 1
    guesses = [estimated_accuracy(answers[labels], answers[other % 10]) for other in others]
    assert guesses == sorted(guesses, reverse=True) and guesses[0] > 0.99 and guesses[1] == pytest.approx(0.9, abs=0.01)
    crowded = torch.where(torch.rand(400, generator=draw) < 0.7, 0, labels)
    other = crowded.clone()
    other[:40] = (other[:40] + 1) % 10
    assert estimated_accuracy(answers[crowded], answers[other]) < guesses[1] - 0.3


def test_refuses_what_it_cannot_judge():
    for shapes in (((1, 10), (1, 10)), ((8, 1), (8, 1)), ((8, 10), (7, 10)), ((8, 10, 4), (8, 10, 4))):
        with pytest.raises(ValueError, match="expected"):
            estimated_accuracy(*map(torch.zeros, shapes))
    with pytest.raises(ValueError, match="exponent"):
        estimated_accuracy(torch.zeros(4, 3), torch.zeros(4, 3), exponent=-1.0)
