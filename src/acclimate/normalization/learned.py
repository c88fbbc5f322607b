"""Running statistics that follow what is learned from: train mode for learning, eval mode for answers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import between
from acclimate.core.normalization import Normalization, normalizations
from acclimate.core.table import Table
from acclimate.normalization.batch import BatchStatistics
from acclimate.normalization.ema import EmaLayer

__all__ = ["LearnedStatistics"]


@normalizations.register("learned")
@dataclass(frozen=True, kw_only=True)
class LearnedStatistics(Normalization):
    """What batch norms do in train mode while a method learns, and in eval mode when it answers.

    A forward that the method learns from is normalised by its own batch and moves the running statistics,
    `run <- (1 - momentum) run + momentum * batch` (unbiased variance), from the source's; the forward of a teacher is
    normalised by its own batch and moves nothing. Answers and other forwards use `run`. Only methods that mark
    forwards as learning, such as AdaContrast, ever move it: with others this is `source`. A layer that brings no
    running statistics is normalised by the batch.

    Argument: `momentum` in [0, 1], the weight of a new batch, published 0.1.
    """

    momentum: float = 0.1

    def __post_init__(self) -> None:
        between(0, 1, momentum=self.momentum)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        if source.running_mean is None:
            return BatchStatistics().layer(source, name, table)
        return LearnedLayer(source, name, table, self.momentum)


class LearnedLayer(EmaLayer):
    def respond(self, x: Tensor) -> Tensor:
        if self.phase != "learn":
            return self.normalise_by_source(x)
        return self.normalise_by_batch(x) if self.owner else self.follow(x)
