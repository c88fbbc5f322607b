"""BoostAdapter: TDA, whose positive cache takes in the image's own surest views for as long as it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from acclimate.core.config import whole
from acclimate.core.method import Card
from acclimate.core.state import State
from acclimate.fields.vision_language.caches import Cache
from acclimate.fields.vision_language.method import registry
from acclimate.fields.vision_language.methods.tda import TDA, affinity, looked_at
from acclimate.fields.vision_language.samples import Sample, doubt

__all__ = ["BoostAdapter"]


@registry.register("boostadapter")
@dataclass(frozen=True, kw_only=True)
class BoostAdapter(TDA):
    """TDA, with the surest views of the image as guests among the positive entries of their classes.

    After the caches have taken the image, each of its `sure` views goes into the entries of its own predicted class,
    `places + boost` of which count, those of least entropy. The answer is given, and the guests leave.

    Arguments, beyond TDA's: `boost` >= 0, 3 on most variants of ImageNet and 0 to 3 elsewhere; `averaged`, whether the
    image is looked at by the mean of its surest views (variants of ImageNet) or by itself (elsewhere);
    `first_in_first_out`, whether a negative cache that is full drops its oldest entry, as released, or its least sure.

    Cost: a forward for each view. Source: Zhang et al., NeurIPS 2024. Fails as TDA does; views of one crop are worth
    little where classes differ in details that crops lose.

    Example: `vision_language.adapt(encoder, texts, method="boostadapter")`.
    """

    card: ClassVar[Card] = Card(
        summary="TDA that counts the image's own surest views as well",
        paper="Zhang et al., NeurIPS 2024",
        fails_when="sure answers are wrong, or classes differ in details that crops lose",
    )
    views: int = 64
    area: float = 0.08
    boost: int = 3
    averaged: bool = True
    first_in_first_out: bool = True

    def check(self) -> None:
        super().check()
        whole(0, boost=self.boost)

    def answer(self, state: State, sample: Sample, *, learn: bool) -> Tensor:
        positive, negative = Cache.of(state, "positive"), Cache.of(state, "negative", ordered=False)
        own = looked_at(sample, self.sure) if self.averaged else (sample.query, sample.logits[0], sample.predictions[0])
        feature, logits, predictions = own
        entropy, label = float(doubt(predictions)), int(logits.argmax())
        if learn:
            positive.add(label, feature, entropy)
            if self.low < entropy / math.log2(max(2, len(logits))) < self.high:
                take = negative.push if self.first_in_first_out else negative.add
                take(label, feature, entropy, predictions)
        score = self.score(logits, feature, positive, negative)
        return score + self._guests(sample, feature, positive)

    def _guests(self, sample: Sample, feature: Tensor, positive: Cache) -> Tensor:
        """What guests add to the votes, and entries that give way to them take away: `[K]`."""
        kept = sample.sure(self.sure)
        labels, doubts = sample.predictions[kept].argmax(1).tolist(), doubt(sample.predictions[kept]).tolist()
        change = sample.logits.new_zeros(sample.logits.shape[1])
        for label in set(labels):
            entries = positive.copy(label, self.boost)
            for place, row, entropy in zip(kept.tolist(), labels, doubts, strict=True):
                if row == label:
                    entries.add(0, sample.views[place], entropy)
            votes = [
                affinity(cache.features[row] @ feature, self.beta).mul(cache.present[row]).sum()
                for cache, row in ((entries, 0), (positive, label))
            ]
            change[label] = self.alpha * (votes[0] - votes[1])
        return change
