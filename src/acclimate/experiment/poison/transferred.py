"""Rows made before the stream begins, on the source as the surrogate of what is adapted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from acclimate.core.config import positive, whole
from acclimate.experiment.poison.attack import Attack, Knowledge, Scene, attacks, climb
from acclimate.functional import entropy

__all__ = ["ConfidentNoise", "RaisedEntropy", "WrongLabels"]


@dataclass(frozen=True, kw_only=True)
class _Climbed(Attack):
    """Arguments: `steps` >= 1 and `rate` > 0 of the ascent. Cost: `steps` forwards and backwards of the pool, once."""

    knows: ClassVar[Knowledge] = Knowledge("source", benign=False, when="offline")
    steps: int = 80
    rate: float = 0.01

    def check(self) -> None:
        whole(1, steps=self.steps)
        positive(rate=self.rate)


@attacks.register("entropy")
@dataclass(frozen=True, kw_only=True)
class RaisedEntropy(_Climbed):
    """The attacker's images moved to where the source is least sure, so that methods of entropy step far.

    Source: after TePA (Cong et al., IEEE S&P 2024, arXiv 2308.08505), which poisons before others come; here they come
    in between.
    """

    def rows(self, scene: Scene) -> Tensor:
        model = scene.source
        start = scene.take(scene.draw(scene.count))
        return climb(start, lambda rows: entropy(model(rows)), self.steps, self.rate)


@attacks.register("wrong-labels")
@dataclass(frozen=True, kw_only=True)
class WrongLabels(_Climbed):
    """The attacker's images moved until the source is sure of the next class, so that wrong answers are reinforced.

    Source: the aim of targeted poisoning, made as `entropy` is.
    """

    def rows(self, scene: Scene) -> Tensor:
        model = scene.source
        chosen = scene.draw(scene.count)
        aims = (scene.labels[chosen] + 1) % (1 + int(scene.labels.max()))
        start = scene.take(chosen)
        return climb(start, lambda rows: -F.cross_entropy(model(rows), aims, reduction="none"), self.steps, self.rate)


@attacks.register("noise")
@dataclass(frozen=True, kw_only=True)
class ConfidentNoise(_Climbed):
    """Noise of which the source is sure: it passes every filter that asks for confidence."""

    def rows(self, scene: Scene) -> Tensor:
        model = scene.source
        shape = scene.take(scene.draw(1)).shape[1:]
        start = torch.rand((scene.count, *shape), generator=scene.generator)
        aims = scene.labels[scene.draw(scene.count)]
        return climb(start, lambda rows: -F.cross_entropy(model(rows), aims, reduction="none"), self.steps, self.rate)
