"""FIND: the samples of a batch are grouped in every layer, and each group is normalised by its own statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import between, one_of
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations
from acclimate.core.table import Table
from acclimate.parts.neighbours import GROUPINGS, METRICS, membership

if TYPE_CHECKING:
    from acclimate.core.state import State

__all__ = ["DESCRIPTORS", "LEAST", "FeatureAwareLayer", "FeatureAwareStatistics", "group_counts", "pooled"]

LEAST = 4
"""Samples that two groups take."""


def _mean(mean: Tensor, variance: Tensor, source: tuple[Tensor, Tensor], eps: float) -> Tensor:
    return mean


def _mean_and_deviation(mean: Tensor, variance: Tensor, source: tuple[Tensor, Tensor], eps: float) -> Tensor:
    parts = (mean, (variance + eps).sqrt())
    return torch.cat([part / part.square().mean().sqrt().clamp_min(1e-12) for part in parts], 1)


def _centred(mean: Tensor, variance: Tensor, source: tuple[Tensor, Tensor], eps: float) -> Tensor:
    return (mean - source[0]) / (source[1] + eps).sqrt()


DESCRIPTORS: Mapping[str, Callable[[Tensor, Tensor, tuple[Tensor, Tensor], float], Tensor]] = {
    "mean": _mean,
    "mean_std": _mean_and_deviation,
    "source_centered": _centred,
}
"""What samples are compared by: from their means and variances `[N, C]`, the source's `[C]` and the layer's eps."""


@normalizations.register("find")
@dataclass(frozen=True, kw_only=True)
class FeatureAwareStatistics(Normalization):
    """Groups of alike samples, each with statistics of its own, blended with the source's: LFD and FABN of FIND.

    In every layer, anew for every batch, from each sample's mean m_b and variance v_b over its positions:
    LFD joins each sample to the one whose m_b is most like its own, and takes connected components for groups g;
    FABN normalises the samples of g by

        m = alpha mu_s + (1 - alpha) mu_g,      mu_g = mean_g m_b
        v = alpha var_s + (1 - alpha) var_g,    var_g = mean_g v_b + mean_g (m_b - mu_g)^2

    Nothing is carried over, no second pass is made. Labels are constants; gradients go through the statistics.

    Arguments: `source_weight`, alpha in [0, 1], 0.8 in its authors' code for every data set; `unbiased`, divide v_b by
    L - 1 for L positions (with one position v_b is 0); `descriptor`, what is compared, "mean", "mean_std" (mean and
    deviation, each over its root mean square) or "source_centered" (`(m_b - mu_s) / sqrt(var_s + eps)`); `metric`,
    "cosine" or "euclidean"; `grouping`, "first_neighbours" or "whole", the batch as one group.

    Batches of one to three samples are one group, which the step's record names `one_group`. `BatchNorm1d` layers, and
    inputs without positions, keep the source's statistics, as in that code. Half precision and autocast have statistics
    in float32.

    Cost: two passes over each layer's input beside the normalising one, and 3 N^2 C multiply-adds; N^2 numbers a layer.
    Source: Feature-based Instance Neighbor Discovery, NeurIPS 2025 (arXiv 2506.06782). Published there: grouping by
    features in every layer, statistics by group, blended with the source's, no backward. From its authors' earlier
    code: one neighbour by cosine of means, the variance formula, alpha = 0.8. Inferred: the other descriptors, the
    metric "euclidean" and that these details carry over.
    Fails when samples are alike by content and not by domain: small maps, few positions, label-sorted batches.

    Example: `acclimate.adapt(net, "bn", normalization="find")`.
    """

    observes: ClassVar[bool] = True
    by_batch: ClassVar[bool] = True
    source_weight: float = 0.8
    unbiased: bool = True
    descriptor: str = "mean"
    metric: str = "cosine"
    grouping: str = "first_neighbours"

    def __post_init__(self) -> None:
        between(0, 1, source_weight=self.source_weight)
        one_of(*DESCRIPTORS, descriptor=self.descriptor)
        one_of(*METRICS, metric=self.metric)
        one_of(*GROUPINGS, grouping=self.grouping)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        return source if isinstance(source, nn.BatchNorm1d) else self.grouping_layer(source, name)

    def grouping_layer(self, source: _BatchNorm, name: str) -> FeatureAwareLayer:
        """The layer for a batch norm over positions."""
        return FeatureAwareLayer(source, name, self)

    def observe(self, state: State, x: Tensor) -> None:
        """Tell the record of a batch that is too small for groups."""
        if len(x) < LEAST:
            state.note(one_group=1.0)

    def passes(self) -> float:
        return 0.0


class FeatureAwareLayer(NormalizationLayer):
    def __init__(self, source: _BatchNorm, name: str, config: FeatureAwareStatistics) -> None:
        super().__init__(source)
        self.source_statistics()
        self.name, self.config = name, config

    def respond(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or x.numel() == 0:
            return self.normalise_by_source(x)
        own = self.own(x)
        return self.normalise(x, *self.blend(*pooled(*own, self.members(*own))))

    def own(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each sample, `[N, C]`."""
        positions = x.shape[2:].numel()
        return self.moments(x, each=True, correction=int(self.config.unbiased and positions > 1))

    @torch.no_grad()
    def labels(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Which group each sample is in, `[N]`."""
        source = (part.to(mean.dtype) for part in self.source_statistics())
        features = DESCRIPTORS[self.config.descriptor](mean, variance, (next(source), next(source)), self.eps)
        return GROUPINGS[self.config.grouping](features, self.config.metric)

    def members(self, mean: Tensor, variance: Tensor) -> Tensor:
        """What averages over groups, `[N, N]`."""
        return membership(self.labels(mean, variance), mean.dtype)

    def blend(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """With the source's share."""
        alpha = self.config.source_weight
        first, second = (part.to(mean.dtype) for part in self.source_statistics())
        return torch.lerp(mean, first, alpha), torch.lerp(variance, second, alpha)


def pooled(means: Tensor, variances: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance `[N, C]` of the group of each sample, from samples of equally many values (total variance)."""
    with torch.autocast(means.device.type, enabled=False):
        mean = members @ means
        return mean, members @ (variances + (means - mean).square())


@torch.no_grad()
def group_counts(model: nn.Module, x: Tensor) -> dict[str, int]:
    """How many groups `x` falls into in each layer of a model that `merged()` gave, by the layer's name."""
    counts: dict[str, Tensor] = {}

    def look(layer: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(layer, FeatureAwareLayer) and args[0].ndim > 2:
            labels = layer.labels(*layer.own(args[0]))
            counts[layer.name] = (labels == torch.arange(len(labels), device=labels.device)).sum()

    hooks = [module.register_forward_pre_hook(look) for module in model.modules()]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: int(count) for name, count in counts.items()}
