"""DMN-ZS: a memory of features, read anew for each image by attention, answers beside the texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.core.config import between, whole
from acclimate.core.method import Card
from acclimate.core.state import State
from acclimate.fields.vision_language.caches import Cache
from acclimate.fields.vision_language.method import OneByOne, registry, sizes
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.samples import Sample, doubt, pair, shares
from acclimate.parts.features import unit

__all__ = ["DMN", "attended"]


@registry.register("dmn")
@dataclass(frozen=True, kw_only=True)
class DMN(OneByOne):
    """Answer by texts and by visual centres that attend to the image.

    The `sure` views' mean prediction gives class and entropy; the class keeps the image's feature q, one of `places`,
    in place of the least sure one if it is surer. Centres are `attended` to q, the text being a permanent entry, and

    `score = p + weight softmax(s v q)`, p the zero-shot prediction. The answer's logits are its logarithm.

    Arguments: `places` 50 (published); `attention` 5.5 (published); `weight`, published ones were chosen by data set on
    its test labels, from 0.3 to 10: 1 here; `sure` 0.1; `views` 32 (published).

    Cost: one forward for each view; `K places D` numbers, all read for each image. Source: Zhang et al., CVPR 2024.
    Fails when sure answers are wrong.

    Example: `vision_language.adapt(encoder, texts, method="dmn")`.
    """

    card: ClassVar[Card] = Card(
        summary="a memory of features, read by attention, answers beside the texts",
        paper="Zhang et al., CVPR 2024",
        fails_when="sure answers are wrong",
    )
    views: int = 32
    places: int = 50
    attention: float = 5.5
    weight: float = 1.0
    sure: float = 0.1

    def check(self) -> None:
        super().check()
        whole(1, places=self.places)
        sizes(attention=self.attention, weight=self.weight)
        between(0, 1, sure=self.sure)

    def keep(self, state: State, model: VisionLanguage) -> None:
        classes, width = model.text_features.shape
        Cache.declare(state, "memory", classes, self.places, width)

    def answer(self, state: State, sample: Sample, *, learn: bool) -> Tensor:
        memory, model = Cache.of(state, "memory", ordered=False), pair(state)
        mean = sample.predictions[sample.sure(self.sure)].mean(0)
        if learn:
            memory.add(int(mean.argmax()), sample.query, float(doubt(mean)))
        centres = attended(memory, model.text_features.cpu(), sample.query, self.attention)
        found = (float(model.logit_scale) * (centres @ sample.query)).softmax(0)
        return shares(sample.predictions[0] + self.weight * found)


def attended(memory: Cache, texts: Tensor, query: Tensor, attention: float) -> Tensor:
    """A unit centre for each class `[K, D]`: `norm(sum_j exp(-attention (1 - m_j . q)) m_j)` over its entries, which
    are of unit length, and its text; the text itself where there are none."""
    weights = torch.exp(attention * (memory.features @ query - 1)).mul_(memory.present)
    of_text = torch.exp(attention * (texts @ query - 1))
    centres = unit(torch.bmm(weights[:, None], memory.features)[:, 0].addcmul_(of_text[:, None], texts))
    # bit for bit the text, so that pairs of such classes are level in a graph rather than ordered by rounding
    return torch.where(memory.counts[:, None] > 0, centres, texts)
