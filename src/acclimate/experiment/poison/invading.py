"""Distribution invading: rows that turn the answers of others in the same batch, through its statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from acclimate.core.config import positive, whole
from acclimate.experiment.poison.attack import Attack, Knowledge, Scene, attacks, by_batch, climb

__all__ = ["BlindInvading", "Invading"]


@attacks.register("invading")
@dataclass(frozen=True, kw_only=True)
class Invading(Attack):
    """Maximise the others' loss at the answers that they would get, `max_a CE(f([x; a])_x, argmax f(x))`.

    f is the source under the statistics of the whole batch. Arguments: `steps` >= 1 and `rate` > 0 of the ascent; no
    bound but that rows are images. Cost: `steps` forwards and backwards of the batch.
    Source: after DIA (Wu et al., ICML 2023), with the source in the place of the adapted weights.
    """

    knows: ClassVar[Knowledge] = Knowledge("source", benign=True, when="online")
    steps: int = 15
    rate: float = 0.1

    def check(self) -> None:
        whole(1, steps=self.steps)
        positive(rate=self.rate)

    def rows(self, scene: Scene) -> Tensor:
        model, start = by_batch(scene.source), scene.take(scene.draw(scene.count))
        others = round(scene.count * (1 - self.share) / self.share)
        seen = scene.take(scene.draw(max(2, others))) if scene.benign is None else scene.benign
        with torch.no_grad():
            answers = model(seen).argmax(1)

        def harm(rows: Tensor) -> Tensor:
            return F.cross_entropy(model(torch.cat([seen, rows]))[: len(seen)], answers)

        return climb(start, harm, self.steps, self.rate)


@attacks.register("invading-blind")
@dataclass(frozen=True, kw_only=True)
class BlindInvading(Invading):
    """As `invading`, with the attacker's own images in the place of the others' rows, which are not seen."""

    knows: ClassVar[Knowledge] = Knowledge("source", benign=False, when="online")
