"""Gain over the source model."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from acclimate.experiment.paired import paired_difference
from acclimate.experiment.plots.style import GREY, INK, blank, colours
from acclimate.experiment.results import SOURCE, Results

__all__ = ["gain_over_source"]


def gain_over_source(results: Results) -> Figure:
    """Points below the source's error: a dot for each corruption, a bar for the mean with its 95 % interval.

    ValueError where the source model did not run.
    """
    if SOURCE not in results.methods:
        raise ValueError("there is no gain over source: the source model is not among the methods.")
    labels = list(results.others)
    palette = colours(results.methods)
    figure, axes = blank(11, 1.1 + 0.52 * max(1, len(labels)))
    axes.axvline(0, color=GREY, linewidth=1)
    for row, label in enumerate(labels):
        gains = results.corruption_gains(label)
        known = {name: gain for name, gain in gains.items() if np.isfinite(gain)}
        axes.scatter(list(known.values()), [row] * len(known), s=22, color=palette[label], alpha=0.35, linewidth=0)
        if known:
            worst = min(known, key=lambda name: known[name])
            axes.annotate(
                worst.replace("_", " "), (known[worst], row), (0, 7), textcoords="offset points", ha="center",
                va="bottom", fontsize=7.5, color=INK,
            )  # fmt: skip
        gap = paired_difference(results, SOURCE, label)
        axes.errorbar(
            gap.mean, row, xerr=[[gap.mean - gap.low], [gap.high - gap.mean]], fmt="D", markersize=6.5,
            color=palette[label], ecolor=INK, elinewidth=1.2, capsize=3, zorder=4,
        )  # fmt: skip
        axes.annotate(
            f"{gap.mean:+.1f}", (gap.mean, row), (0, -8), textcoords="offset points", ha="center", va="top",
            fontsize=8, fontweight="bold",
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.75)
    axes.grid(axis="x", color="#e3e5e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(x=0.06)
    axes.set_xlabel("points of error below the source model (right is better)")
    axes.spines["left"].set_visible(False)
    return figure
