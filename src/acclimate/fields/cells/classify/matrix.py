"""Answers of classifiers from each laboratory on each laboratory, and tables of scores from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from acclimate.core.config import whole
from acclimate.fields.cells.classify.arrays import Floats, Labels
from acclimate.fields.cells.classify.scores import Counts, confusion_matrix, percentiles, score

__all__ = ["Answers", "Matrix"]

_BLOCK = 4_000_000
"""Numbers at a time while cells are drawn."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one fit said of cells of one laboratory: their positions in it, predicted and true labels, `[n]` each."""

    cells: Labels
    predicted: Labels
    true: Labels


@dataclass(frozen=True, slots=True)
class Matrix:
    """Scores of every source (rows) on every target (columns), the laboratories in the order of `laboratories`.

    A number is "accuracy", "macro_f1" or "balanced_accuracy". It is scored for each fit; a place of a table is the mean
    over fits.

    Attributes:
        laboratories: their names.
        classes: how many.
        answers: of each fit, by source and target. On the diagonal each fit answers its held-out fold, elsewhere the
            whole target.
        notes: what was done otherwise than asked for, in words.
    """

    laboratories: tuple[str, ...]
    classes: int
    answers: Mapping[tuple[str, str], tuple[Answers, ...]]
    notes: tuple[str, ...] = field(default=())

    def counts(self, source: str, target: str) -> Counts:
        """Confusion matrix of each fit, int64 `[fits, C, C]`. KeyError for an unknown laboratory."""
        fits = self._of(source, target)
        return np.stack([confusion_matrix(fit.predicted, fit.true, self.classes) for fit in fits])

    def _of(self, source: str, target: str) -> tuple[Answers, ...]:
        if (source, target) not in self.answers:
            raise KeyError(f"There is no {source} to {target}. The laboratories: {', '.join(self.laboratories)}.")
        return self.answers[source, target]

    def confusion(self, source: str, target: str) -> Counts:
        """Cells by true (rows) and predicted class, int64 `[C, C]`, summed over fits.

        On the diagonal each cell counts once, elsewhere once for each fit.
        """
        return self.counts(source, target).sum(0)

    def fits(self, source: str, target: str, number: str) -> Floats:
        """The number for each fit, float64 `[fits]`."""
        return score(self.counts(source, target), number)

    def mean(self, number: str) -> Floats:
        """Mean over fits, float64 `[sources, targets]`."""
        return np.array([[fits.mean() for fits in row] for row in self._table(number)])

    def spread(self, number: str) -> Floats:
        """Population standard deviation over fits, float64 `[sources, targets]`; 0 where there is one fit."""
        return np.array([[fits.std() for fits in row] for row in self._table(number)])

    def _table(self, number: str) -> list[list[Floats]]:
        return [[self.fits(source, target, number) for target in self.laboratories] for source in self.laboratories]

    def cross(self, number: str) -> float:
        """Mean of the places off the diagonal: from each laboratory to each other. NaN for one laboratory."""
        apart = ~np.eye(len(self.laboratories), dtype=np.bool_)
        return float(self.mean(number)[apart].mean()) if apart.any() else float("nan")

    def within(self, number: str) -> float:
        """Mean of the diagonal: each laboratory on its own held-out cells."""
        return float(self.mean(number).diagonal().mean())

    def average(self, number: str) -> float:
        """Unweighted mean of all places, the papers' "average"."""
        return float(self.mean(number).mean())

    def interval(
        self, source: str, target: str, number: str, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
    ) -> tuple[float, float]:
        """Percentile bootstrap interval of one place of the table: of the mean over its fits.

        Cells of the target are drawn with replacement, each with what every fit said of it. On the diagonal they are
        drawn within each fold. It says what other cells would give; other fits are told by `spread`.
        """
        whole(1, resamples=resamples)
        random = np.random.default_rng(seed)
        fits = self._of(source, target)
        if source == target:
            means = np.mean([_drawn([fit], self.classes, number, resamples, random) for fit in fits], axis=0)
        else:
            means = _drawn(fits, self.classes, number, resamples, random)
        return percentiles(means, level)


def _drawn(fits: Sequence[Answers], classes: int, number: str, resamples: int, random: np.random.Generator) -> Floats:
    """The number, averaged over fits that answered the same cells, for resamples of these cells: `[resamples]`."""
    places = np.stack([fit.true * classes + fit.predicted for fit in fits], 1)
    patterns, count = np.unique(places, axis=0, return_counts=True)
    hits = np.eye(classes**2, dtype=np.int64)[patterns]
    total, block = int(count.sum()), max(1, _BLOCK // len(count))
    found: list[Floats] = []
    for start in range(0, resamples, block):
        drawn = random.multinomial(total, count / total, size=min(block, resamples - start))
        counts = np.stack([drawn @ hits[:, fit] for fit in range(len(fits))])
        found.append(score(counts.reshape(len(fits), -1, classes, classes), number).mean(0))
    return np.concatenate(found)
