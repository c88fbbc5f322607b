"""What the trials show: tables, and a heat map of each pair of laboratories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

import numpy as np
from matplotlib.figure import Figure

from acclimate.experiment.plots.style import INK, blank
from acclimate.experiment.reproduce.part import Cell, Drawing, Grid, Line, Shown
from acclimate.fields.cells.reproduction.confusions import confusion_drawing, confusion_grid, recall_grid
from acclimate.fields.cells.reproduction.published import published
from acclimate.fields.cells.reproduction.rows import Row
from acclimate.fields.cells.reproduction.trials import Trial, shown_of

__all__ = ["shown", "shown_published"]

_NUMBERS = {"macro-F1": "macro_f1", "balanced": "balanced_accuracy", "accuracy": "accuracy"}


def shown(
    rows: Sequence[Row],
    trials: Mapping[str, Sequence[Trial]],
    classifiers: Sequence[str],
    classes: Sequence[str],
    protocol: str,
) -> Shown:
    """Macro-F1 across laboratories by classifier, and what else tells features apart."""
    head = [*classifiers, "mean", "± seeds", "accuracy", "within", "origin"]
    lines = [Line("measured", row.title, _cells(trials[row.key], classifiers)) for row in rows]
    notes = sorted({note for each in trials.values() for trial in each for note in trial.notes})
    name = shown_of(classifiers)
    return Shown(
        title="Across laboratories",
        protocol=protocol,
        grids=[
            Grid(key="cells", head=head, lines=lines, title="Macro-F1 in another laboratory, %"),
            _scores(rows, trials, classifiers),
            _pairs(rows, trials, name),
            recall_grid(rows, trials, classes, name),
            confusion_grid(rows, trials, classes, name),
        ],
        drawings=[
            Drawing(key="pairs", figure=_heat(rows, trials), alternative=f"Macro-F1 of each pair, {name}"),
            confusion_drawing(rows, trials, classes, name),
        ],
        notes=[
            "`mean` is over the classifiers; `accuracy` and `within` (macro-F1 in five folds of the same laboratory) "
            "are means over classifiers, too. `origin`: how often a linear classifier tells the laboratory, balanced; "
            f"chance is {100 / _laboratories(trials):.0f}. Autoencoders see all laboratories' pictures, without "
            "labels; what is standardised has seen the target's, too.",
            *notes,
        ],
    )


def shown_published() -> Shown:
    """What the papers print."""
    return Shown(
        title="As published",
        protocol="other data sets (Matek-19, Acevedo-20, a hospital's own), SAM ViT-B; five folds of the source",
        grids=published(),
        notes=["Not to be compared with the above number by number: other cells, other classes, a pretrained encoder."],
    )


def _laboratories(trials: Mapping[str, Sequence[Trial]]) -> int:
    return len({pair.partition(">")[0] for pair in next(iter(trials.values()))[0].matrix})


def _mean(trials: Sequence[Trial], classifiers: Sequence[str], table: str, number: str) -> list[float]:
    """Over classifiers, of each seed, %."""
    return [100 * fmean(getattr(trial, table)[number][name] for name in classifiers) for trial in trials]


def _cells(trials: Sequence[Trial], classifiers: Sequence[str]) -> list[Cell]:
    each = [100 * fmean(trial.cross["macro_f1"][name] for trial in trials) for name in classifiers]
    means = _mean(trials, classifiers, "cross", "macro_f1")
    spread = f"{pstdev(means):.2f}" if len(trials) > 1 else None
    origin = 100 * fmean(trial.origin for trial in trials)
    accuracy = fmean(_mean(trials, classifiers, "cross", "accuracy"))
    within = fmean(_mean(trials, classifiers, "within", "macro_f1"))
    return [*each, fmean(means), spread, accuracy, within, origin]


def _scores(rows: Sequence[Row], trials: Mapping[str, Sequence[Trial]], classifiers: Sequence[str]) -> Grid:
    """All numbers, elsewhere and in the same laboratory."""
    tables = {"elsewhere": "cross", "within": "within"}
    lines = [
        Line(
            "measured",
            row.title,
            [
                fmean(_mean(trials[row.key], classifiers, table, number))
                for table in tables.values()
                for number in _NUMBERS.values()
            ],
        )
        for row in rows
    ]
    head = [f"{number} {place}" for place in tables for number in _NUMBERS]
    title = "Macro-F1, balanced accuracy and accuracy in another laboratory and in the same, mean over classifiers, %"
    return Grid(key="cells-scores", head=head, lines=lines, title=title)


def _pairs(rows: Sequence[Row], trials: Mapping[str, Sequence[Trial]], name: str) -> Grid:
    """Each pair with its interval, of the first seed."""
    pairs = list(next(iter(trials.values()))[0].matrix)
    lines = [Line("measured", row.title, [_told(trials[row.key][0], pair) for pair in pairs]) for row in rows]
    title = f"Macro-F1 of each source > target with 95 % bootstrap intervals over cells, {name}, first seed, %"
    return Grid(key="cells-pairs", head=pairs, lines=lines, title=title)


def _told(trial: Trial, pair: str) -> str:
    value = trial.matrix[pair]
    low, high = value["interval"]
    return f"{100 * value['macro_f1']:.0f} ({100 * low:.0f} to {100 * high:.0f})"


def _heat(rows: Sequence[Row], trials: Mapping[str, Sequence[Trial]]) -> Figure:
    pairs = list(next(iter(trials.values()))[0].matrix)
    values = np.array(
        [[100 * fmean(trial.matrix[pair]["macro_f1"] for trial in trials[row.key]) for pair in pairs] for row in rows]
    )
    figure, axes = blank(1.9 + 0.62 * len(pairs), 1.5 + 0.42 * len(rows))
    axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for line, numbers in enumerate(values):
        for column, number in enumerate(numbers):
            colour = "white" if number < 60 else INK
            axes.text(column, line, f"{number:.0f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(pairs)), [pair.replace(">", "\n> ") for pair in pairs], fontsize=7)
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=8)
    return figure
