"""TDA: keys and values of the surest images vote for their classes, those of middling ones against others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.core.config import at_least, between, whole
from acclimate.core.method import Card
from acclimate.core.state import State
from acclimate.fields.vision_language.caches import Cache
from acclimate.fields.vision_language.method import OneByOne, registry, sizes
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.samples import Sample, doubt

__all__ = ["TDA", "affinity", "looked_at"]


@registry.register("tda")
@dataclass(frozen=True, kw_only=True)
class TDA(OneByOne):
    """Add to the logits what two small caches say of the image.

    Of the feature f, logits l and predicted class c of an image with entropy `H` (with several views: means over the
    `sure` share of least entropy), the positive cache of class c takes f, one of `places`, in place of the least sure
    one if it is surer. Where `low < H / log2 K < high` the negative cache takes f and the predictions p. Then

    `score = l + alpha sum exp(-beta (1 - f . k)) onehot - negative_alpha sum exp(-negative_beta (1 - f . k)) m`

    over positive keys with their classes, and negative keys with `m = 1[negative_low < p < negative_high]`. H is in
    nats and the maximum in bits, as in the released code, whose bounds are meant so: `H / log2 K` is at most ln 2.

    Arguments (published; alpha and beta for ImageNet): `places` 3, `negative_places` 2; `alpha` 2, `beta` 5;
    `negative_alpha` 0.117, `negative_beta` 1; `low`, `high` 0.2, 0.5; `negative_low`, `negative_high` 0.03, 1;
    `sure` 0.1; `views` 1, or 64 with `area` 0.08 on the variants of ImageNet.

    Cost: one forward for each view, no backward; `K (places + negative_places) D` numbers. Source: Karmanov et al.,
    CVPR 2024. Fails when sure answers are wrong, which its cache repeats.

    Example: `vision_language.adapt(encoder, texts, method="tda")`.
    """

    card: ClassVar[Card] = Card(
        summary="lets the surest images of each class vote",
        paper="Karmanov et al., CVPR 2024",
        fails_when="sure answers are wrong",
    )
    places: int = 3
    negative_places: int = 2
    alpha: float = 2.0
    beta: float = 5.0
    negative_alpha: float = 0.117
    negative_beta: float = 1.0
    low: float = 0.2
    high: float = 0.5
    negative_low: float = 0.03
    negative_high: float = 1.0
    sure: float = 0.1

    def check(self) -> None:
        super().check()
        whole(1, places=self.places, negative_places=self.negative_places)
        sizes(alpha=self.alpha, beta=self.beta, negative_alpha=self.negative_alpha, negative_beta=self.negative_beta)
        at_least(0, low_bound=self.low, high_bound=self.high)
        at_least(0, negative_low=self.negative_low, negative_high=self.negative_high)
        between(0, 1, sure=self.sure)

    def keep(self, state: State, model: VisionLanguage) -> None:
        classes, width = model.text_features.shape
        Cache.declare(state, "positive", classes, self.places, width)
        Cache.declare(state, "negative", classes, self.negative_places, width, details=classes)

    def answer(self, state: State, sample: Sample, *, learn: bool) -> Tensor:
        positive, negative = Cache.of(state, "positive"), Cache.of(state, "negative")
        feature, logits, predictions = looked_at(sample, self.sure)
        entropy, label = float(doubt(predictions)), int(logits.argmax())
        if learn:
            positive.add(label, feature, entropy)
            if self.low < entropy / math.log2(max(2, len(logits))) < self.high:
                negative.add(label, feature, entropy, predictions)
        return self.score(logits, feature, positive, negative)

    def score(self, logits: Tensor, feature: Tensor, positive: Cache, negative: Cache) -> Tensor:
        """The logits with both caches' votes."""
        votes = self.alpha * affinity(positive.features @ feature, self.beta).mul(positive.present).sum(1)
        against = affinity(negative.features @ feature, self.negative_beta).mul(negative.present)
        assert negative.details is not None
        masks = (negative.details > self.negative_low) & (negative.details < self.negative_high)
        return logits + votes - self.negative_alpha * torch.einsum("kl,klc->c", against, masks.to(against.dtype))


def affinity(similarity: Tensor, beta: float) -> Tensor:
    """`exp(-beta (1 - similarity))`."""
    return torch.exp(beta * (similarity - 1))


def looked_at(sample: Sample, sure: float) -> tuple[Tensor, Tensor, Tensor]:
    """Feature, logits and predictions: of the image, or means over its surest views."""
    if len(sample.views) == 1:
        return sample.query, sample.logits[0], sample.predictions[0]
    kept = sample.sure(sure)
    return sample.views[kept].mean(0), sample.logits[kept].mean(0), sample.predictions[kept].mean(0)
