"""Which domains each batch of a stream holds."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from acclimate.experiment.plots.style import INK, blank
from acclimate.streams import Stream, domain_histogram

__all__ = ["domain_mix"]

_COLUMNS = 400
"""More batches than this share a column, which then shows their mean."""


def domain_mix(stream: Stream) -> Figure:
    """Each batch's shares of domains: batches across, domains down; dark is a large share, white none."""
    counts = domain_histogram(stream).astype(np.float64)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    together = -(-len(shares) // _COLUMNS)
    columns = np.array([part.mean(0) for part in np.split(shares, range(together, len(shares), together))])
    names = [name.replace("_", " ") for name in stream.composition().names]
    figure, axes = blank(11, 1.4 + 0.27 * len(names))
    edges = np.minimum(np.arange(len(columns) + 1) * together, len(shares))
    drawn = np.ma.masked_equal(columns.T, 0)
    mesh = axes.pcolormesh(edges, np.arange(len(names) + 1), drawn, cmap="magma_r", norm=PowerNorm(0.5, 0, 1))
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=8.5)
    axes.set_xlabel(f"batch of {stream.name}" + (f", {together} batches to a column" if together > 1 else ""))
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, pad=0.015, fraction=0.025)
    bar.set_label("share of the batch", color=INK, fontsize=8.5)
    bar.outline.set_visible(False)
    return figure
