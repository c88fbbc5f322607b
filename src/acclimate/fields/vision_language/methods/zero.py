"""ZERO: the surest views of an image vote, each for one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.core.config import between
from acclimate.core.method import Card
from acclimate.core.state import State
from acclimate.fields.vision_language.method import OneByOne, registry
from acclimate.fields.vision_language.samples import Sample, doubt, shares

__all__ = ["ZERO"]


@registry.register("zero")
@dataclass(frozen=True, kw_only=True)
class ZERO(OneByOne):
    """Count the classes that the `sure` share of views of least entropy predict: a softmax of temperature zero.

    Of classes that are level, the one that the surest of the other views predicts, if any predicts one of them;
    else the one with the largest logit in the first of those. The answer's logits are the logarithm of the counts, with
    a half more for the class that wins. Nothing is kept.

    Arguments (published): `sure` in [0, 1], 0.3; `views` 64 with `area` 0.08.

    Cost: one forward for each view. Source: Farina et al., NeurIPS 2024.
    Fails when crops lose the object, and gains nothing on images that come with one view.

    Example: `vision_language.adapt(encoder, texts, method="zero")`.
    """

    card: ClassVar[Card] = Card(
        summary="counts the votes of the surest views",
        paper="Farina et al., NeurIPS 2024",
        fails_when="crops lose the object",
    )
    views: int = 64
    area: float = 0.08
    sure: float = 0.3

    def check(self) -> None:
        super().check()
        between(0, 1, sure=self.sure)

    def answer(self, state: State, sample: Sample, *, learn: bool) -> Tensor:
        order = doubt(sample.predictions).argsort(stable=True)
        kept, others = order.split(
            [max(1, int(self.sure * len(order))), len(order) - max(1, int(self.sure * len(order)))]
        )
        labels = sample.logits.argmax(1)
        counts = torch.bincount(labels[kept], minlength=sample.logits.shape[1]).to(sample.logits.dtype)
        level = (counts == counts.max()).nonzero().flatten()
        counts[self._winner(sample, level, labels, others)] += 0.5
        return shares(counts)

    @staticmethod
    def _winner(sample: Sample, level: Tensor, labels: Tensor, others: Tensor) -> Tensor:
        if len(level) == 1 or len(others) == 0:
            return level[0]
        told = torch.isin(labels[others], level).nonzero().flatten()
        if len(told):
            return labels[others[told[0]]]
        return level[sample.logits[others[0], level].argmax()]
