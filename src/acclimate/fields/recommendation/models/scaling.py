"""Larger versions of a ranker, by what they compute: wider layers, more layers, wider embeddings."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from acclimate.core.config import at_least, one_of, positive
from acclimate.fields.recommendation.models.counting import cost_of
from acclimate.fields.recommendation.models.ranker import Ranker
from acclimate.fields.recommendation.models.registry import build, option_names

__all__ = ["KINDS", "kinds_of", "scaled"]

KINDS = ("width", "depth", "embedding")
"""What `scaled` can enlarge."""

_GRID = 256
"""Steps of the factor of widths from one to two: MLPs of 2048 change by 8."""

_MOST = 2**16

_CLOSE = 0.05


def kinds_of(name: str) -> tuple[str, ...]:
    """Which of `KINDS` a ranker can be enlarged in: FM has no layers.

    >>> kinds_of("fm"), kinds_of("fnn")
    (('embedding',), ('width', 'depth', 'embedding'))
    """
    return KINDS if "mlp_dims" in option_names(name) else ("embedding",)


def scaled(
    name: str,
    sizes: Sequence[int],
    kind: str,
    factor: float,
    *,
    width: int | None = None,
    preset: str = "small",
    **options: Any,
) -> tuple[dict[str, Any], int, float]:
    """Options and width of a model with `factor` times the multiply-adds of its base.

    `width`: all layers by one factor, found by bisection (`Ranker.widened`). `depth`: layers are added one by one
    (`Ranker.deepened`). Both give the nearest that there is if it lies within 5 % of what was asked, else the nearest
    above. `embedding`: d times the factor, whatever that comes to.

    Arguments:
        name, sizes, width, preset, options: of the base, as for `build`.
        kind: one of `KINDS`.
        factor: 1 or more; 1 is the base itself.

    Returns:
        Options and width for `build`, and the factor that was reached.

    Raises:
        ValueError: an argument out of range, or FM by width or depth, since it has no layers.

    >>> options, width, reached = scaled("fnn", [10] * 10, "width", 2, preset="small")
    >>> options["mlp_dims"], width, round(reached, 2)
    ([208, 104], 10, 2.02)
    """
    one_of(*KINDS, kind=kind)
    positive(factor=factor)
    at_least(1, factor=factor)

    def outline(width: int | None, options: Mapping[str, Any]) -> Ranker:
        with torch.device("meta"):
            return build(name, sizes, width=width, preset=preset, **options)

    base = outline(width, options)
    own, d, once = base.options(), base.width, cost_of(base).multiply_adds
    if factor == 1:
        return own, d, 1.0
    if kind == "embedding":
        made = outline(round(d * factor), own)
        return made.options(), made.width, cost_of(made).multiply_adds / once

    def rung(step: int) -> dict[str, Any]:
        return base.widened(own, 1 + step / _GRID) if kind == "width" else base.deepened(own, step)

    @cache
    def reached(step: int) -> float:
        return cost_of(outline(d, rung(step))).multiply_adds / once

    step = _chosen(reached, factor)
    return rung(step), d, reached(step)


def _chosen(reached: Callable[[int], float], factor: float) -> int:
    """The step nearest to the factor if it is close, else the first at or above."""
    high = 1
    while reached(high) < factor and high < _MOST:
        high *= 2
    above = bisect_left(range(high), factor, key=reached)
    nearest = min(above, max(above - 1, 0), key=lambda step: abs(reached(step) - factor))
    return nearest if abs(reached(nearest) - factor) <= _CLOSE * factor else above
