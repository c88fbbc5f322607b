"""How much a layer's statistics tell of the domain, and which layers tell enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil

import torch
from torch import Tensor

__all__ = ["RULES", "chosen", "divergence", "divergences", "domain_share"]


def domain_share(means: Tensor) -> Tensor:
    """Share of a two-way decomposition that goes with the domain: `D / (D + E)` in [0, 1], a scalar.

    `means` `[M, N, C]` are standardised means of N images under M shifts each. With d_m the mean over images less the
    mean of all, and e_i the mean over shifts less the mean of all, `D = mean_m |d_m|^2` and `E = mean_i |e_i|^2`.
    """
    centre = means.mean((0, 1))
    by_domain = (means.mean(1) - centre).square().sum(1).mean()
    by_content = (means.mean(0) - centre).square().sum(1).mean()
    return by_domain / (by_domain + by_content + 1e-12)


def divergence(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Mean over all entries of `KL(a|b)/2 + KL(b|a)/2` between normal distributions of these means and variances."""
    return divergences(*one, *other).mean()


def divergences(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> Tensor:
    """`KL(a|b)/2 + KL(b|a)/2` between normal distributions, entry by entry; the logarithms cancel."""
    away = (mean - other_mean).square()
    return ((variance + away) / other_variance + (other_variance + away) / variance - 2) / 4


def _above_mean(scores: Sequence[float], level: float) -> list[bool]:
    mean = sum(scores) / len(scores)
    return [score >= mean for score in scores]


def _above_level(scores: Sequence[float], level: float) -> list[bool]:
    return [score >= level for score in scores]


def _top(scores: Sequence[float], level: float) -> list[bool]:
    best = sorted(range(len(scores)), key=lambda place: -scores[place])[: ceil(level * len(scores))]
    return [place in best for place in range(len(scores))]


RULES: Mapping[str, Callable[[Sequence[float], float], list[bool]]] = {
    "mean": _above_mean,
    "absolute": _above_level,
    "top": _top,
}
"""Which scores suffice, given a level: those of at least their mean; of at least the level; that share of the best."""


def chosen(scores: Tensor, rule: str, level: float) -> list[bool]:
    """Which layers to take by their scores `[L]`, read from the device: always the best one."""
    found = torch.nan_to_num(scores).tolist()
    picked = RULES[rule](found, level)
    picked[found.index(max(found))] = True
    return picked
