"""A layer that groups samples or leaves them together, as a choice among all layers says."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.normalization import wide
from acclimate.memory.surroundings import version
from acclimate.normalization.find import LEAST, FeatureAwareLayer, FeatureAwareStatistics, pooled
from acclimate.parts.layer_scores import divergence

__all__ = ["UNDECIDED", "Reading", "SelectiveLayer"]

UNDECIDED, UNIFIED = -1, 0
"""What the choice says of a layer; 1 for one that groups."""


class SelectiveLayer(FeatureAwareLayer):
    """One layer of many that a choice is made among; its place, the seed and the reading are given when all stand.

    "choice" and "scores" are buffers that all layers share.
    """

    place: int
    seed: int
    reading: Reading
    means: Tensor | None = None
    """Each sample's mean in units of the source's statistics, from the last pass that observed."""

    def __init__(
        self, source: _BatchNorm, name: str, config: FeatureAwareStatistics, *, unified: str, scoring: bool
    ) -> None:
        super().__init__(source, name, config)
        self.unified, self.scoring = unified, scoring

    @property
    def choosing(self) -> bool:
        """Whether no choice has been made."""
        return self.reading.of(self.get_buffer("choice"))[self.place] == UNDECIDED

    @property
    def grouped(self) -> bool:
        return self.reading.of(self.get_buffer("choice"))[self.place] != UNIFIED

    def respond(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or x.numel() == 0:
            return self.normalise_by_source(x)
        if self.phase == "observe":
            first, second = self.source_statistics()
            mean = x.mean(tuple(range(2, x.ndim)), dtype=wide(x.dtype))
            self.means = (mean - first) / (second + self.eps).sqrt()
            return self.normalise_by_source(x)
        if self.grouped:
            return super().respond(x)
        if self.unified == "source":
            return self.normalise_by_source(x)
        means, variances = self.own(x)
        mean = means.mean(0)
        return self.normalise(x, *self.blend(mean, (variances + (means - mean).square()).mean(0)))

    def members(self, mean: Tensor, variance: Tensor) -> Tensor:
        found = super().members(mean, variance)
        if self.phase == "answer" and self.scoring and self.reading.first and len(mean) >= LEAST and self.choosing:
            with torch.no_grad():
                self.get_buffer("scores")[self.place] += self.excess(mean, variance, found)
        return found

    def excess(self, means: Tensor, variances: Tensor, members: Tensor) -> Tensor:
        """How far groups are from the batch, less how far groups of the same sizes at random are."""
        order = torch.randperm(len(means), generator=torch.Generator().manual_seed(self.seed + self.place))
        order = order.to(means.device)
        batch = self.blend(*pooled(means, variances, torch.full_like(members, 1 / len(means))))
        found, by_chance = (
            divergence(self.blend(*pooled(means, variances, each)), batch)
            for each in (members, members[order][:, order])
        )
        return (found - by_chance).clamp_min(0)


class Reading:
    """What stands in a tensor, read from its device when it has changed."""

    def __init__(self) -> None:
        self.first = True
        """Whether the running step is the first on its batch."""
        self._tensor: Tensor | None = None
        self._version = (0, 0)
        self._values: list[int] = []

    def of(self, tensor: Tensor) -> list[int]:
        if self._tensor is not tensor or self._version != version(tensor):
            self._tensor, self._version, self._values = tensor, version(tensor), tensor.tolist()
        return self._values
