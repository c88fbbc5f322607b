"""How right the answers are where classes are known: only on pictures that the classifier was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.cells.classify.scores import Scores, interval, scores
from acclimate.fields.cells.classify.unsure import upper_bound
from acclimate.fields.cells.data.laboratory import UNKNOWN
from acclimate.fields.cells.desk.answering import Answers
from acclimate.fields.cells.desk.model import CellModel, digests

__all__ = ["Scored", "Share", "scored"]


class Share(NamedTuple):
    """`right` of `cells`, and the exact 95 % interval (Clopper-Pearson) of their share."""

    right: int
    cells: int

    @property
    def low(self) -> float:
        """Lower end."""
        return 1 - upper_bound(self.cells - self.right, self.cells, 0.975)

    @property
    def high(self) -> float:
        """Upper end."""
        return upper_bound(self.right, self.cells, 0.975)

    def __str__(self) -> str:
        if not self.cells:
            return "no cells"
        return f"{self.right / self.cells:.1%} ({self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True, eq=False, slots=True)
class Scored:
    """Scores of labelled cells.

    Attributes:
        cells: how many were scored.
        familiar: labelled cells that the classifier was fitted on.
        fresh: whether these were left out, since there are others.
        scores: of those that were scored.
        macro_f1: 95 % interval, over cells drawn with replacement.
        recall: of each class.
        sure: those that are not unsure, without the held-out ones.
        held_out: cells scored on which the threshold was chosen. That the classifier is right on them is no less likely
            than elsewhere; that it is where it is sure is more likely, since the threshold makes it so.
    """

    cells: int
    familiar: int
    fresh: bool
    scores: Scores
    macro_f1: tuple[float, float]
    recall: tuple[Share, ...]
    sure: Share
    held_out: int

    @property
    def accuracy(self) -> Share:
        """Of all cells scored."""
        return Share(int(self.scores.confusion.diagonal().sum()), self.cells)


def scored(found: Sequence[Answers], model: CellModel) -> Scored | None:
    """Score the answers of all laboratories together; None where no class is known."""
    true = np.concatenate([each.laboratory.labels.numpy() for each in found])
    labelled = true != UNKNOWN
    if not labelled.any():
        return None
    words = [word for each in found for word in digests(each.laboratory.images)]
    familiar, held = (np.array([word in kept for word in words]) for kept in (model.fitted, model.held_out))
    others = labelled & ~familiar
    chosen = others if others.any() else labelled
    predicted, unsure = (np.concatenate(list(parts))[chosen] for parts in _parts(found))
    truth, classes = true[chosen], len(model.classes)
    right, sure = predicted == truth, ~unsure & ~held[chosen]
    whole = scores(predicted, truth, classes)
    return Scored(
        int(chosen.sum()),
        int((labelled & familiar).sum()),
        bool(others.any()),
        whole,
        interval(predicted, truth, classes),
        tuple(Share(int(row[label]), int(row.sum())) for label, row in enumerate(whole.confusion)),
        Share(int((right & sure).sum()), int(sure.sum())),
        int(held[chosen].sum()),
    )


def _parts(found: Sequence[Answers]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.bool_]]]:
    return [each.predicted for each in found], [each.unsure for each in found]
