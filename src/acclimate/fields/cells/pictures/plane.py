"""Features of cells on a plane, coloured by class and by laboratory, before and after the autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from acclimate.experiment.plots.style import GREY, blank, colours
from acclimate.fields.cells.classify.arrays import Floats, as_features
from acclimate.streams.shared import require

__all__ = ["UNNAMED", "planes", "projected"]

UNNAMED = "unknown"
"""The class of cells whose class is not known; they are grey and lie below the others."""

_TSNE = range(30, 2001)
"""Numbers of cells for which neighbourhoods are drawn; with fewer there are none, with more it takes long."""

_SHOWN = 6000


def projected(features: Any, seed: int = 0) -> tuple[Floats, str]:
    """Features `[N, D]` on a plane, `[N, 2]`, and by what: `t-SNE` for 30 to 2000 cells, else `PCA`.

    Each feature is brought to mean 0 and deviation 1 first. Cost: about 5 s for 1000 cells by t-SNE.
    """
    values = as_features(features).astype(np.float64)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)
    if len(values) in _TSNE:
        neighbours: Any = require("sklearn.manifold", "Drawing cells on a plane", "cells").TSNE
        few = min(30.0, (len(values) - 1) / 3)
        return neighbours(2, perplexity=few, init="pca", random_state=seed).fit_transform(values), "t-SNE"
    _, _, axes = np.linalg.svd(values, full_matrices=False)
    found = values @ axes[:2].T
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1]))), "PCA"


def planes(stages: Mapping[str, Any], colourings: Mapping[str, Sequence[str]], seed: int = 0) -> Figure:
    """A row for each stage, a column for each colouring.

    Arguments:
        stages: features `[N, D]` of the same cells by title, such as before and after.
        colourings: a word for each cell by what it tells, such as its class.
        seed: of t-SNE, and of who is drawn where there are more than 6000.
    """
    count = len(next(iter(stages.values())))
    drawn = np.random.default_rng(seed).permutation(count)[:_SHOWN]
    figure, first = blank(5.2 * len(colourings), 4.4 * len(stages) + 0.5)
    first.remove()
    figure.set_dpi(170)
    grid: NDArray[Any] = figure.subplots(len(stages), len(colourings), squeeze=False)
    for row, (title, features) in zip(grid, stages.items(), strict=True):
        places, by = projected(features, seed)
        for axes, (kind, words) in zip(row, colourings.items(), strict=True):
            axes.set_title(f"{title}, by {kind} ({by})", loc="left")
            _scatter(axes, places[drawn], [str(words[place]) for place in drawn], _palette(words))
    for axes, words in zip(grid[-1], colourings.values(), strict=True):
        dots = [
            Line2D([], [], marker="o", linestyle="", markersize=5, color=colour, label=word)
            for word, colour in _palette(words).items()
        ]
        axes.legend(
            handles=dots, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=min(4, len(dots)), frameon=False
        )
    return figure


def _palette(words: Sequence[str]) -> dict[str, str]:
    known = list(dict.fromkeys(words))
    named = [word for word in known if word != UNNAMED]
    palette = colours([f"a {word}" for word in named])  # a word of the style's own has a colour of its own
    found = {word: palette[f"a {word}"] for word in named}
    return found | ({UNNAMED: GREY} if UNNAMED in known else {})


def _scatter(axes: Axes, places: Floats, words: Sequence[str], palette: Mapping[str, str]) -> None:
    unnamed = np.array([word == UNNAMED for word in words])
    size = min(26.0, max(7.0, 5000 / len(words)))
    for which, alpha in ((unnamed, 0.35), (~unnamed, 0.75)):
        shades = [palette[word] for word, here in zip(words, which, strict=True) if here]
        axes.scatter(*places[which].T, c=shades, s=size, alpha=alpha, linewidths=0, rasterized=True)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#f6f7f9")
