"""Which images of the stream speak for a class when one of them is answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from acclimate.adapted import Adapted
from acclimate.experiment.plots.style import INK, blank
from acclimate.fields.vision_language.lengths import direction
from acclimate.fields.vision_language.pictures.kept import kept, written
from acclimate.parts.features import unit

__all__ = ["support_grid", "supporters"]


def supporters(adapted: Adapted, features: Tensor, name: str = "clip") -> dict[int, list[int]]:
    """Numbers of the images that stand in a cache, by class, the surest first.

    Arguments: `features` `[n, D]`, those of the images that have come, in the order of their numbers; of CLIP, or of
    the auxiliary encoder for `name="auxiliary"`. Entries that are means of several views are matched with the nearest.

    Raises ValueError for a method without such a cache, and for features of another width than its entries'.
    """
    cache, rows = kept(adapted, name), direction(features.cpu())
    found: dict[int, list[int]] = {}
    if cache is None:
        return found
    if rows.ndim != 2 or not len(rows) or rows.shape[1] != cache.features.shape[2]:
        raise ValueError(
            f"found features {list(rows.shape)}, expected [n, {cache.features.shape[2]}], n >= 1, those of the images "
            f"that the cache {name!r} was filled with."
        )
    for label in range(len(cache.counts)):
        own = cache.present[label]
        if bool(own.any()):
            entries = cache.features[label][own][cache.entropies[label][own].argsort(stable=True)]
            found[label] = (unit(entries) @ rows.T).argmax(1).tolist()
    return found


def support_grid(
    images: Tensor, numbers: dict[int, list[int]], classes: Sequence[str], *, query: Tensor, chosen: Sequence[int]
) -> Figure:
    """The image that is answered, and a line of supporting images for each of the chosen classes.

    Arguments: `images` `[n, 3, H, W]` in [0, 1], those that have come; `numbers`, of `supporters`; `query`
    `[3, H, W]`; `chosen` classes, the likeliest first.
    """
    most = max((len(numbers.get(label, ())) for label in chosen), default=1)
    figure, axes = blank(1.3 + 0.72 * (most + 2), 0.9 * max(2, len(chosen)) + 0.5)
    axes.axis("off")
    axes.set_xlim(-3.2, most)
    axes.set_ylim(len(chosen), -0.4)
    middle = len(chosen) / 2
    axes.imshow(_shown(query), extent=(-3.1, -1.7, middle + 0.7, middle - 0.7), interpolation="nearest")
    axes.annotate("answered", (-2.4, middle - 0.8), ha="center", fontsize=8, color=INK)
    for line, label in enumerate(chosen):
        axes.annotate(written(classes[label]), (-0.15, line + 0.5), ha="right", va="center", fontsize=8.5)
        for place, number in enumerate(numbers.get(label, ())):
            extent = (place + 0.04, place + 0.96, line + 0.96, line + 0.04)
            axes.imshow(_shown(images[number]), extent=extent, interpolation="nearest")
    axes.set_aspect("equal")
    return figure


def _shown(image: Tensor) -> NDArray[np.float32]:
    return image.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()
