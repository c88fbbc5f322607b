"""Error over time."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from acclimate.experiment.plots.style import GREY, blank, colours
from acclimate.experiment.results import SOURCE, Results, segment_numbers

__all__ = ["MOST_LINES", "error_over_time"]

MOST_LINES = 8
"""More methods than this cannot be told apart in one plot of lines."""

_FEW_BATCHES = 400
_LEGEND_WIDTH = 100


def _batch_errors(results: Results, label: str) -> NDArray[np.float64]:
    """Error of each batch in percent, mean over seeds."""
    curves = [
        100 * track.column("errors") / np.where(track.column("scored") > 0, track.column("scored"), np.nan)
        for track in results.tracks(label).values()
    ]
    return np.mean(curves, axis=0)


def _stretches(results: Results) -> list[tuple[str, int, int]]:
    """Name, first batch and end of each stretch of one corruption, whatever its severities."""
    track = next(iter(results.tracks(results.methods[0]).values()))
    stretches: list[tuple[str, int, int]] = []
    for place, row in enumerate(track.rows):
        if stretches and stretches[-1][0] == row.segment:
            stretches[-1] = (row.segment, stretches[-1][1], place + 1)
        else:
            stretches.append((row.segment, place, place + 1))
    return stretches


def _mark(axes: Axes, stretches: list[tuple[str, int, int]]) -> None:
    for number, (name, start, end) in enumerate(stretches):
        if number % 2:
            axes.axvspan(start, end, color="#f3f4f6", zorder=0, linewidth=0)
        axes.annotate(
            name.replace("_", " "),
            ((start + end) / 2, 0),
            (0, -8),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=40,
            rotation_mode="anchor",
            ha="right",
            va="top",
            fontsize=8.5,
        )


def error_over_time(results: Results) -> Figure:
    """Error of each batch (faint) and of each segment (strong), with the corruptions marked below.

    Of more than `MOST_LINES` methods only the best are shown.
    """
    figure, axes = blank(11, 4.4)
    first = next(iter(results.tracks(results.methods[0]).values()))
    numbers = segment_numbers(first.rows)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    edges = np.append(starts, len(numbers))
    _mark(axes, _stretches(results))
    best = sorted(results.others, key=results.mean_error)[:MOST_LINES]
    shown = [label for label in results.methods if label == SOURCE or label in best]
    palette = colours(shown)
    for label in shown:
        source = label == SOURCE
        errors = _batch_errors(results, label)
        if len(errors) <= _FEW_BATCHES:
            places = np.arange(len(errors)) + 0.5
            axes.plot(places, errors, color=palette[label], linewidth=0.8, alpha=0.3, zorder=2)
        axes.stairs(
            results.segment_errors(label), edges, baseline=None, color=palette[label], linewidth=1.4 if source else 2,
            label=label, zorder=3, linestyle=(0, (3, 1.5)) if source else "solid",
        )  # fmt: skip
    axes.set_xlim(0, len(numbers))
    axes.set_ylim(0, None)
    axes.set_xticks([])
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_ylabel("error, %")
    axes.spines["bottom"].set_color(GREY)
    columns = min(len(shown), max(1, _LEGEND_WIDTH // (max(map(len, shown)) + 8)))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, borderaxespad=0.2)
    return figure
