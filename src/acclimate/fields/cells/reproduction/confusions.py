"""Which classes are found in another laboratory, and what the others are taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from acclimate.experiment.plots.style import INK, blank
from acclimate.experiment.reproduce.part import Cell, Drawing, Grid, Line
from acclimate.fields.cells.classify.arrays import Floats
from acclimate.fields.cells.reproduction.rows import Row
from acclimate.fields.cells.reproduction.trials import Trial

__all__ = ["confusion_drawing", "confusion_grid", "recall_grid"]

_MAIN = ("pixels:standard", "hand-made:standard", "sam:standard", "bcsam", "dorl")
"""Rows whose matrices are drawn, where there are some of them."""


def recall_grid(
    rows: Sequence[Row], trials: Mapping[str, Sequence[Trial]], classes: Sequence[str], classifier: str
) -> Grid:
    """Recall of each class, the mean over pairs of laboratories whose target has it, and over seeds."""
    lines = [Line("measured", row.title, _recalls(trials[row.key])) for row in rows]
    title = f"Recall of each class in another laboratory, mean over pairs, {classifier}, %"
    return Grid(key="cells-recall", head=list(classes), lines=lines, title=title)


def confusion_grid(
    rows: Sequence[Row], trials: Mapping[str, Sequence[Trial]], classes: Sequence[str], classifier: str
) -> Grid:
    """Cells by true and answered class, summed over pairs of laboratories, their fits, and seeds."""
    lines = [
        Line("measured", f"{row.title}, {name}", [float(count) for count in counts])
        for row in rows
        for name, counts in zip(classes, _summed(trials[row.key]), strict=True)
    ]
    title = f"Cells by true class (rows) and answer (columns), all pairs and fits, {classifier}"
    return Grid(key="cells-confusion", head=list(classes), lines=lines, title=title, aside=True)


def confusion_drawing(
    rows: Sequence[Row], trials: Mapping[str, Sequence[Trial]], classes: Sequence[str], classifier: str
) -> Drawing:
    """The same as shares of the true class, a picture for each of the main rows."""
    main = [row for row in rows if row.key in _MAIN] or list(rows)
    told = "what cells of each class (rows) are taken for (columns) in another laboratory, % of all pairs' cells"
    figure = _side_by_side([row.title for row in main], [_summed(trials[row.key]) for row in main], classes)
    return Drawing(key="confusion", figure=figure, alternative=f"{told}, {classifier}".capitalize())


def _across(trial: Trial) -> Floats:
    """Of each pair of different laboratories, `[pairs, C, C]`."""
    pairs = [(pair.partition(">"), value) for pair, value in trial.matrix.items()]
    return np.array([value["confusion"] for (source, _, target), value in pairs if source != target], dtype=np.float64)


def _summed(trials: Sequence[Trial]) -> Floats:
    return np.sum([_across(trial).sum(0) for trial in trials], axis=0)


def _recalls(trials: Sequence[Trial]) -> list[Cell]:
    counts = np.concatenate([_across(trial) for trial in trials])
    truth = counts.sum(2)
    # Each fit answers all of the target, so the recall of the fits together is the mean of theirs.
    recalls = np.diagonal(counts, axis1=1, axis2=2) / np.maximum(truth, 1)
    there = (truth > 0).sum(0)
    found = 100 * (recalls * (truth > 0)).sum(0) / np.maximum(there, 1)
    return [float(value) if pairs else None for value, pairs in zip(found, there, strict=True)]


def _side_by_side(titles: Sequence[str], counts: Sequence[Floats], classes: Sequence[str]) -> Figure:
    figure, first = blank(1.2 + 2.3 * len(titles), 2.9)
    first.remove()
    for place, (title, matrix) in enumerate(zip(titles, counts, strict=True)):
        shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        axes = figure.add_subplot(1, len(titles), place + 1)
        axes.imshow(shares, cmap="viridis", vmin=0, vmax=100)
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share < 60 else INK
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_title(title.replace(", ", ",\n", 1), fontsize=8)
        axes.set_xticks(range(len(classes)), [name[:4] for name in classes], fontsize=7)
        axes.set_yticks(range(len(classes)), list(classes) if place == 0 else [""] * len(classes), fontsize=7)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure
