"""Shallow statistics: the batch's in the first layers, groups' where domains mix, the source's in deep ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.anatomy import batch_norms
from acclimate.core.config import at_least, between, one_of, whole
from acclimate.core.normalization import Normalization, NormalizationLayer, is_stock, normalizations
from acclimate.core.table import Table
from acclimate.normalization.shallow_layer import Seen, ShallowLayer

if TYPE_CHECKING:
    from acclimate.core.state import State

__all__ = ["SHARE", "SPREAD", "ShallowStatistics", "can_follow"]

SHARE = "normalization.shallow.share"
"""Declared state: the share w of the batch's statistics in deep layers."""

SPREAD = "normalization.shallow.spread"
"""Declared state: how far the samples of the last answer's batch differed; 0 if that was too small to tell."""

_GROUPS = ("never", "auto", "always")


@normalizations.register("shallow")
@dataclass(frozen=True, kw_only=True)
class ShallowStatistics(Normalization):
    """The batch's statistics in the first share of the batch norms, the source's in the rest.

    What is deep follows the classes of a batch as much as its domain, what is shallow hardly. So batches sorted by
    label, which batch statistics everywhere spoil, are answered better than by the source, and others nearly as well
    as by batch statistics everywhere. In the first layers, for a batch of n,

        m = pi mu_s + (1 - pi) mu_B,  v = pi var_s + (1 - pi) var_B,  pi = prior / (prior + n)

    with the biased variance; in the others (and where one value a channel leaves no variance) `mu_s` and `var_s`.
    Layers count in the order in which the model declares them, up to a share of all that is rounded up.

    Where `groups` is "auto", the layers in the first share `watch`, but the very first, tell whether domains mix in a
    batch, by the spread of how much the samples vary: `mean_c std_b log(v_bc + 1e-3 var_sc)`, v_b the variance over
    positions, averaged over these layers. Above `level` the layers between `watch` and `depth` normalise groups of
    alike samples, as "find" does, by

        m = a mu_s + (1 - a) mu_g,  v = a var_s + (1 - a) var_g,  a = source_weight

    "always" does so whatever the spread, "never" not at all. Batches below `least` samples and inputs without positions
    have no groups. Everything is decided in the running forward, by the batch alone.

    With `follow`, the deep layers take a share w of the batch's statistics, `1 - w (1 - pi)` of the source's. It is
    declared state, 0 at first, which a method that has seen the answers may set: `auto` does.

    Arguments: `depth`, `watch` and `source_weight` in [0, 1]; `prior` >= 0, the source's weight in samples; `groups`;
    `level` >= 0; `least` >= 2; `follow`. Preset "auto": groups and w as the stream asks for.
    A batch norm without running statistics, or with a forward of its own, stays as it is.
    Cost: as "find" between `watch` and `depth`, two passes over the inputs of the other layers that take a share of the
    batch's statistics. Kept: two numbers, w and the last answer's spread.
    Source: ours; the groups are those of FIND, NeurIPS 2025 (arXiv 2506.06782).

    Example: `acclimate.adapt(net, "bn", normalization="shallow")`.
    """

    by_batch: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"auto": {"groups": "auto", "follow": True}}
    depth: float = 0.5
    prior: float = 8.0
    groups: str = "never"
    watch: float = 0.3
    level: float = 0.54
    source_weight: float = 0.6
    least: int = 16
    follow: bool = False

    def __post_init__(self) -> None:
        between(0, 1, depth=self.depth, watch=self.watch, source_weight=self.source_weight)
        at_least(0, prior=self.prior, level=self.level)
        one_of(*_GROUPS, groups=self.groups)
        whole(2, least=self.least)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        if not _can_follow(source):
            return source
        return ShallowLayer(source, name, self)

    def connect(self, layers: list[NormalizationLayer], table: Table) -> None:
        own = [layer for layer in layers if isinstance(layer, ShallowLayer)]
        if not own or not (self.follow or self.groups == "auto"):
            return
        mean, _ = own[0].source_statistics()
        share, spread = (mean.new_zeros((), dtype=torch.float32) for _ in range(2))
        for name, number in ((SHARE, share), (SPREAD, spread)):  # of the stream, not learned from it
            table.declare(name, number, initial=0.0, kind="statistics", learned=False)
        seen: Seen = {}
        for layer in own:
            layer.join(share, spread, seen)

    def explain(self, state: State) -> str:
        """In a sentence: whose statistics the layers took in the last answer, and why. Reads two numbers."""
        share, spread = (float(s[name].tensor) if name in (s := state.table.slots) else 0.0 for name in (SHARE, SPREAD))
        deep = "the batch" if self.follow and share > 0 else "the source"
        if not any(layer.groups_samples for layer in state.layers if isinstance(layer, ShallowLayer)):
            return f"Shallow layers take the statistics of the whole batch, deep ones those of {deep}."
        why = {"always": "groups of alike samples, as set"}.get(
            self.groups, "the whole batch: nothing told domains apart"
        )
        if self.groups == "auto" and spread > 0:
            mixed = spread > self.level
            why = "groups of alike samples, since domains mix" if mixed else "the whole batch, whose domain is one"
            why += f" (spread {spread:.2f}, border {self.level:.2f})"
        return f"Layers of middle depth take the statistics of {why}; deep ones those of {deep}."


def can_follow(model: nn.Module) -> bool:
    """Whether a model has a batch norm that these statistics change."""
    return any(_can_follow(layer) for layer in batch_norms(model).values())


def _can_follow(layer: _BatchNorm) -> bool:
    return is_stock(layer) and layer.running_mean is not None
