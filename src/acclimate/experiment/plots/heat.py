"""Methods against corruptions."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from acclimate.experiment.plots.style import blank, readable
from acclimate.experiment.results import Results

__all__ = ["heat_map"]


def heat_map(results: Results) -> Figure:
    """Error in percent of each method under each corruption; dark is bad, the best of a column is bold."""
    labels, names = list(results.methods), list(results.corruptions)
    errors = np.array([[results.corruption_errors(label)[name] for name in names] for label in labels])
    known = errors[np.isfinite(errors)]
    top = float(known.max()) if known.size else 1.0
    figure, axes = blank(max(5.0, 1.7 + 0.62 * len(names)), 1.5 + 0.36 * len(labels))
    shades = colormaps["YlOrRd"]
    axes.pcolormesh(errors, cmap=shades, vmin=0, vmax=1.1 * top or 1.0, edgecolors="white", linewidth=1.5)
    axes.invert_yaxis()
    for row, column in np.ndindex(errors.shape):
        value = errors[row, column]
        if not np.isfinite(value):
            continue
        red, green, blue, _ = shades(value / (1.1 * top or 1.0))
        best = len(labels) > 1 and value == np.nanmin(errors[:, column])
        axes.text(
            column + 0.5, row + 0.5, f"{value:.1f}", ha="center", va="center", fontsize=9,
            color=readable(red, green, blue), fontweight="bold" if best else "normal",
        )  # fmt: skip
    words = [name.replace("_", " ") for name in names]
    axes.set_xticks(np.arange(len(names)) + 0.5, words, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(labels)) + 0.5, labels)
    axes.spines[:].set_visible(False)
    return figure
