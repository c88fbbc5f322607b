"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from acclimate.core.config import one_of
from acclimate.fields.diffusion.exchange.gather import Gather
from acclimate.fields.diffusion.exchange.ring import Ring
from acclimate.fields.diffusion.exchange.stale import Stale
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.exchange.ulysses import Ulysses

__all__ = ["STRATEGIES", "build"]

STRATEGIES: Mapping[str, Callable[[], Strategy]] = MappingProxyType(
    {each.name: each for each in (Gather, Ring, Stale, Ulysses)}
)
"""Makers of strategies; "gather" is patch parallelism for diffusion transformers, and without compression the codec
is "whole"."""


def build(strategy: str | Strategy) -> Strategy:
    """A strategy from its name. ValueError for one that is none.

    >>> build("ring").name
    'ring'
    """
    if isinstance(strategy, Strategy):
        return strategy
    one_of(*STRATEGIES, strategy=strategy)
    return STRATEGIES[strategy]()
