"""How caches fill: how sure the entries of each class are, over the stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from acclimate.adapted import Adapted
from acclimate.experiment.plots.style import blank
from acclimate.fields.vision_language.caches import Cache
from acclimate.fields.vision_language.pictures.kept import kept, written
from acclimate.fields.vision_language.samples import pair

__all__ = ["cache_over_time", "watch_cache"]


def watch_cache(
    adapted: Adapted, batches: Iterable[tuple[Any, Mapping[str, Any]]], name: str = "clip"
) -> tuple[NDArray[np.float64], list[int]]:
    """Answer batches `(images, other arguments)`; gives the mean entropy of a cache's entries after each, `[K, T]`, NaN
    where a class has none, and the images that had come by then. ValueError for a method without such a cache."""
    kept(adapted, name)
    columns: list[NDArray[np.float64]] = []
    seen, total = list[int](), 0
    for images, others in batches:
        adapted(images, **others)
        total += len(images)
        seen.append(total)
        cache = kept(adapted, name)
        columns.append(np.full(_classes(adapted), np.nan) if cache is None else _doubts(cache))
    return np.stack(columns, 1) if columns else np.zeros((0, 0)), seen


def _classes(adapted: Adapted) -> int:
    return len(pair(adapted.state).text_features)


def _doubts(cache: Cache) -> NDArray[np.float64]:
    present = cache.present
    sums = (cache.entropies * present).sum(1).double() / present.sum(1).clamp_min(1)
    return np.where(present.any(1).numpy(), sums.numpy(), np.nan)


def cache_over_time(doubts: NDArray[np.float64], seen: Sequence[int], classes: Sequence[str] = ()) -> Figure:
    """A line of shades for each class: dark where its entries are sure, blank where there are none."""
    figure, axes = blank(9, min(9.0, 1.4 + 0.22 * len(doubts)))
    edges = [0, *seen]
    drawn = axes.pcolormesh(edges, np.arange(len(doubts) + 1), doubts, cmap="viridis", shading="flat")
    axes.set_ylim(len(doubts), 0)
    if classes and len(classes) <= 40:
        axes.set_yticks(np.arange(len(doubts)) + 0.5, [written(name) for name in classes])
    axes.set_xlabel("images that have come")
    axes.set_ylabel("" if classes else "class")
    figure.colorbar(drawn, ax=axes, label="mean entropy of a class's entries, nats", shrink=0.8)
    return figure
