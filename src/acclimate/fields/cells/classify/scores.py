r"""How good predicted labels are: accuracy, macro-F1, balanced accuracy, recall of each class, and intervals.

With $n_{tp}$ cells of true class t predicted as p, class c has recall $n_{cc} / \sum_p n_{cp}$ and
$F_1 = 2 n_{cc} / (\sum_p n_{cp} + \sum_t n_{tc})$. Balanced accuracy and macro-F1 are the means of these over the
classes that occur in the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.core.config import one_of, whole
from acclimate.fields.cells.classify.arrays import Array, Floats, as_labels

__all__ = ["NUMBERS", "Scores", "confusion_matrix", "interval", "percentiles", "score", "scores"]

NUMBERS = ("accuracy", "macro_f1", "balanced_accuracy")
"""What `score` and `interval` can tell."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores as shares from 0 to 1.

    Attributes:
        accuracy: share of cells that are predicted rightly.
        macro_f1, balanced_accuracy: means over the classes in the truth.
        recall: of each class, float64 `[C]`; NaN where the truth lacks it.
        confusion: cells by true (rows) and predicted class, int64 `[C, C]`.
    """

    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    recall: Floats
    confusion: Counts


def scores(predicted: Array, true: Array, classes: int) -> Scores:
    """Score predicted labels.

    Arguments:
        predicted, true: whole numbers in `0..classes - 1`, `[N]` each, one cell or more.
        classes: C, 1 or more. A class that the truth lacks is left out of all means; a cell that is predicted as one
            counts against its true class.

    Raises:
        ValueError: no cells, lengths that differ, or labels out of range.

    >>> found = scores([0, 0, 1, 2], [0, 1, 1, 1], classes=3)
    >>> found.accuracy, round(found.balanced_accuracy, 4), round(found.macro_f1, 4), found.recall.round(4).tolist()
    (0.5, 0.6667, 0.5833, [1.0, 0.3333, nan])
    """
    counts = confusion_matrix(predicted, true, classes)
    truth = counts.sum(1)
    recall = np.where(truth > 0, counts.diagonal() / np.maximum(truth, 1), np.nan)
    accuracy, macro_f1, balanced = (float(score(counts, number)) for number in NUMBERS)
    return Scores(accuracy, macro_f1, balanced, recall, counts)


def confusion_matrix(predicted: Array, true: Array, classes: int) -> Counts:
    """Cells by true (rows) and predicted class, int64 `[C, C]`; arguments and errors as for `scores`."""
    whole(1, classes=classes)
    truth = as_labels(true, classes=classes)
    answers = as_labels(predicted, len(truth), classes)
    if not len(truth):
        raise ValueError("There are no cells to score; expected one or more.")
    return np.bincount(truth * classes + answers, minlength=classes**2).reshape(classes, classes)


def score(counts: Counts, number: str) -> Floats:
    """One of `NUMBERS` for confusion matrices `[..., C, C]`, float64 `[...]`; ValueError for another name."""
    one_of(*NUMBERS, number=number)
    right = counts.diagonal(axis1=-2, axis2=-1).astype(np.float64)
    truth, answers = counts.sum(-1), counts.sum(-2)
    if number == "accuracy":
        return right.sum(-1) / truth.sum(-1)
    each = right / np.maximum(truth, 1) if number == "balanced_accuracy" else 2 * right / np.maximum(truth + answers, 1)
    return (each * (truth > 0)).sum(-1) / (truth > 0).sum(-1)


def interval(
    predicted: Array,
    true: Array,
    classes: int,
    number: str = "macro_f1",
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a score over cells drawn with replacement.

    The counts of a resample are drawn at once, from the multinomial law that drawing single cells amounts to. It says
    what other cells of the same laboratory would give, nothing about other fits of the classifier.

    Arguments:
        predicted, true, classes: as for `scores`.
        number: one of `NUMBERS`.
        resamples: how many, 1 or more.
        seed: of a private generator.
        level: share of resamples inside, between 0 and 1.

    Returns:
        Low and high.

    Raises:
        ValueError: an argument out of range.
    """
    whole(1, resamples=resamples)
    counts = confusion_matrix(predicted, true, classes)
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts.ravel() / counts.sum(), size=resamples)
    return percentiles(score(drawn.reshape(-1, classes, classes), number), level)


def percentiles(values: Floats, level: float) -> tuple[float, float]:
    """The range that holds the middle `level` of the values; ValueError unless it lies between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.95.")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
