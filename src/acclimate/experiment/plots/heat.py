"""Numbers as shades: methods against corruptions, or against streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from acclimate.experiment.plots.style import blank, readable
from acclimate.experiment.results import Results

__all__ = ["count_map", "gain_map", "heat_map", "share_map"]

Floats = NDArray[np.float64]


def heat_map(results: Results) -> Figure:
    """Error in percent of each method under each corruption; dark is bad, the best of a column is bold."""
    labels, names = list(results.methods), list(results.corruptions)
    errors = np.array([[results.corruption_errors(label)[name] for name in names] for label in labels])
    known = errors[np.isfinite(errors)]
    top = float(known.max()) if known.size else 1.0
    best = (
        (errors == np.nanmin(errors, axis=0)) if len(labels) > 1 and known.size else np.zeros(errors.shape, dtype=bool)
    )
    words = [name.replace("_", " ") for name in names]
    return _shaded(
        errors, labels, words, colormaps["YlOrRd"], Normalize(0, 1.1 * top or 1.0), lambda value: f"{value:.1f}", best
    )


def gain_map(gains: Floats, labels: Sequence[str], names: Sequence[str]) -> Figure:
    """Points of error below the source, `[methods, streams]`: blue is better than the source, red worse.

    Cells without a number stay empty; those below the source are bold. Shades end at the largest gain and at the
    worst loss, or ten points of loss if that is less, so that one collapse does not bleach the rest.
    """
    known = gains[np.isfinite(gains)]
    top = max(1.0, float(known.max())) if known.size else 1.0
    low = max(1.0, min(10.0, -float(known.min()))) if known.size else 1.0
    shades = TwoSlopeNorm(0.0, vmin=-low, vmax=top)
    return _shaded(gains, labels, names, colormaps["RdBu"], shades, lambda value: f"{value:+.1f}", gains < 0)


def share_map(shares: Floats, labels: Sequence[str], names: Sequence[str]) -> Figure:
    """Shares in percent, `[methods, streams]`: dark is all of it. Cells without a number stay empty."""
    told = np.zeros(shares.shape, dtype=np.bool_)
    return _shaded(shares, labels, names, colormaps["Purples"], Normalize(0, 100), lambda value: f"{value:.0f}", told)


def count_map(counts: Floats, labels: Sequence[str], names: Sequence[str]) -> Figure:
    """Counts over two settings, `[rows, columns]`, shaded by their logarithm: dark is many; the least is bold."""
    known = counts[np.isfinite(counts)]
    low, high = (float(known.min()), float(known.max())) if known.size else (1.0, 1.0)
    shades = LogNorm(low, max(1.01 * low, 2 * high))
    return _shaded(counts, labels, names, colormaps["YlGnBu"], shades, lambda value: f"{value:.0f}", counts == low)


def _shaded(
    values: Floats,
    rows: Sequence[str],
    columns: Sequence[str],
    colours: Colormap,
    norm: Normalize,
    told: Callable[[float], str],
    bold: NDArray[np.bool_],
) -> Figure:
    shades = np.asarray(colours(norm(values)))
    figure, axes = blank(max(5.0, 1.7 + 0.62 * len(columns)), 1.5 + 0.36 * len(rows))
    axes.pcolormesh(np.ma.masked_invalid(values), cmap=colours, norm=norm, edgecolors="white", linewidth=1.5)
    axes.invert_yaxis()
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        if not np.isfinite(value):
            continue
        red, green, blue, _ = shades[row, column]
        axes.text(
            column + 0.5, row + 0.5, told(value), ha="center", va="center", fontsize=9,
            color=readable(red, green, blue), fontweight="bold" if bold[row, column] else "normal",
        )  # fmt: skip
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.spines[:].set_visible(False)
    return figure
