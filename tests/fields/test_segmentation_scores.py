"""The confusion matrix and what follows from it, against counts of sets of pixels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.fields.segmentation import Confusion


def maps(seed: int, classes: int, shape: tuple[int, ...], low: int = 0) -> Tensor:
    return torch.randint(low, classes, shape, generator=torch.Generator().manual_seed(seed))


def oracle(answers: list[Tensor], labels: list[Tensor], classes: int) -> tuple[list[float], float]:
    """Intersection over union by sets of places, and the share of wrong pixels; Python numbers are float64."""
    truth = {c: set[tuple[int, int]]() for c in range(classes)}
    said = {c: set[tuple[int, int]]() for c in range(classes)}
    wrong = known = 0
    for number, (answer, label) in enumerate(zip(answers, labels, strict=True)):
        for place, (a, t) in enumerate(zip(answer.flatten().tolist(), label.flatten().tolist(), strict=True)):
            if 0 <= t < classes:
                truth[t].add((number, place))
                said[a].add((number, place))
                wrong, known = wrong + (a != t), known + 1
    iou = [len(truth[c] & said[c]) / len(truth[c] | said[c]) if truth[c] else math.nan for c in range(classes)]
    return iou, 100 * wrong / known


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), batches=st.integers(1, 3))
def test_scores_are_those_of_sets_of_pixels(seed: int, classes: int, batches: int):
    answers = [maps(seed + k, classes, (2, 5, 7)) for k in range(batches)]
    labels = [maps(seed + 100 + k, classes, (2, 5, 7), low=-1) for k in range(batches)]
    counts = Confusion(classes)
    for answer, label in zip(answers, labels, strict=True):
        counts.add(answer, label)
    iou, error = oracle(answers, labels, classes)
    assert counts.iou().dtype == torch.float64
    assert counts.iou().tolist() == pytest.approx(iou, rel=1e-14, nan_ok=True)
    present = [value for value in iou if not math.isnan(value)]
    assert counts.mean_iou() == pytest.approx(100 * math.fsum(present) / len(present), rel=1e-13)
    assert counts.error() == pytest.approx(100 - counts.mean_iou())
    assert counts.pixel_error() == pytest.approx(error, rel=1e-13)


def test_a_class_without_truth_is_left_out_and_its_answers_cost_the_others():
    counts = Confusion(3)
    counts.add(torch.tensor([[[0, 0, 2, 1]]]), torch.tensor([[[0, 0, 0, 1]]]))
    assert counts.iou()[:2].tolist() == [2 / 3, 1.0] and math.isnan(counts.iou()[2])
    assert counts.mean_iou() == pytest.approx(100 * (2 / 3 + 1) / 2)


@pytest.mark.parametrize("void", [-1, 255, 3])
def test_void_counts_nowhere(void: int):
    answers, labels = maps(0, 3, (2, 6, 6)), maps(1, 3, (2, 6, 6))
    hidden = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(2)) < 0.4
    plain, masked = Confusion(3), Confusion(3)
    plain.add(answers[~hidden].view(1, 1, -1), labels[~hidden].view(1, 1, -1))
    masked.add(answers, labels.masked_fill(hidden, void))
    assert torch.equal(plain.matrix, masked.matrix)
    assert masked.matrix.sum() == (~hidden).sum()


def test_nothing_counted_has_no_score():
    counts = Confusion(2)
    assert math.isnan(counts.mean_iou()) and math.isnan(counts.pixel_error())
    counts.add(torch.zeros(1, 2, 2).long(), torch.full((1, 2, 2), -1))
    assert math.isnan(counts.error()) and counts.matrix.tolist() == [[0, 0], [0, 0]]


def test_logits_count_as_their_largest():
    logits = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    labels = maps(3, 4, (2, 5, 6), low=-1)
    from_logits, from_classes = Confusion(4), Confusion(4)
    from_logits.add(logits, labels)
    from_classes.add(logits.argmax(1), labels)
    assert torch.equal(from_logits.matrix, from_classes.matrix)


def test_merged_counts_are_those_of_one_pass():
    parts = [(maps(k, 3, (1, 4, 4)), maps(9 + k, 3, (1, 4, 4), low=-1)) for k in range(3)]
    whole, merged = Confusion(3), Confusion(3)
    for answers, labels in parts:
        whole.add(answers, labels)
        one = Confusion(3)
        one.add(answers, labels)
        merged.merge(one)
    merged.merge(Confusion(3))
    assert torch.equal(whole.matrix, merged.matrix)
    with pytest.raises(ValueError, match="counts 4 classes"):
        merged.merge(Confusion(4))


@pytest.mark.parametrize(
    ("answers", "labels", "message"),
    [
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4).long(), r"expected logits \[B, 3, H, W\]"),
        (torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 4).long(), "interpolate"),
        (torch.zeros(1, 4, 4).long(), torch.zeros(4, 4).long(), "answers are for"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(answers: Tensor, labels: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        Confusion(3).add(answers, labels)


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="classes is 0"):
        Confusion(0)
