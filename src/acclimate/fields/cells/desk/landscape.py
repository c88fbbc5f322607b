"""Where cells lie by feature maps and by codes, and how well that gives away their laboratory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from acclimate.experiment.plots.style import embedded
from acclimate.fields.cells.classify.separability import chance, separability
from acclimate.fields.cells.data.laboratory import UNKNOWN
from acclimate.fields.cells.desk.answering import Answers
from acclimate.fields.cells.desk.model import CellModel
from acclimate.fields.cells.desk.seeing import mean_features
from acclimate.fields.cells.pictures.plane import UNNAMED, planes

__all__ = ["landscape"]


def landscape(found: Sequence[Answers], model: CellModel) -> tuple[str, str]:
    """A figure, and a line on it; cells are coloured by their class where any is known, else by the answer."""
    before = [mean_features(model.encoder, each.laboratory) for each in found]
    after = [each.sight.codes for each in found]
    known = any(bool((each.laboratory.labels != UNKNOWN).any()) for each in found)
    by_class = [word for each in found for word in _words(each, model.classes, known=known)]
    by_laboratory = [each.laboratory.name for each in found for _ in each.laboratory.keys]
    colourings = {"class" if known else "answer": by_class, "laboratory": by_laboratory}
    figure = planes({"Before": torch.cat(before), "After": torch.cat(after)}, colourings)
    told = (
        "Before: means of the segmenter's feature maps. After: the codes that answers are given from. Each dot is a "
        "cell; near dots are alike, distances between far ones say little."
    )
    return embedded(
        figure, "Cells on a plane, by the segmenter's features and by the codes"
    ), f"{told} {_origin(found, before, after)}"


def _words(found: Answers, classes: tuple[str, ...], *, known: bool) -> list[str]:
    labels = found.laboratory.labels.tolist() if known else found.predicted.tolist()
    return [UNNAMED if label == UNKNOWN else classes[label] for label in labels]


def _origin(found: Sequence[Answers], before: Sequence[Tensor], after: Sequence[Tensor]) -> str:
    """How often a classifier guesses the laboratory, where there are several of ten cells or more."""
    names = [each.laboratory.name for each in found if len(each.laboratory) >= 10]
    if len(names) < 2:
        return ""
    first, last = (
        separability({each.laboratory.name: rows for each, rows in zip(found, stage, strict=True) if len(rows) >= 10})
        for stage in (before, after)
    )
    blind = chance({name: torch.zeros(1) for name in names})
    return (
        f"A classifier guesses the laboratory of {first:.0%} of cells before and {last:.0%} after; blindly {blind:.0%}."
    )
