"""Tip-Adapter: a few labelled images of each class vote, by how alike they are to the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.core.method import Card
from acclimate.core.state import State
from acclimate.fields.vision_language.caches import Cache
from acclimate.fields.vision_language.checks import wrong_rows
from acclimate.fields.vision_language.lengths import direction
from acclimate.fields.vision_language.method import OneByOne, registry, sizes
from acclimate.fields.vision_language.methods.tda import affinity
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.samples import Sample, pair

__all__ = ["TipAdapter"]


@registry.register("tip-adapter")
@dataclass(frozen=True, kw_only=True)
class TipAdapter(OneByOne):
    """`score = l + alpha sum exp(-beta (1 - q . k)) onehot` over features k of labelled images: a few-shot reference.

    Nothing is learned from the stream.

    Arguments: `features` `[n, D]` of labelled images, or `[E, n, D]` of E views of each, which are averaged, and
    `labels` int64 `[n]`: of each class the first `shots` are kept, in declared state, so that a saved adaptation needs
    them no more; `alpha` 1.17 and `beta` 1 (published for ImageNet; elsewhere chosen on validation images).

    Raises ValueError without labelled images, for features of another width than the texts', zero or not finite, and
    for labels that are no class.
    Cost: one forward; `K shots D` numbers. Source: Zhang et al., ECCV 2022.
    Fails when the labelled images are of another domain than the stream.

    Example: `vision_language.adapt(encoder, texts, TipAdapter(features=few, labels=labels))`.
    """

    card: ClassVar[Card] = Card(
        summary="lets a few labelled images of each class vote",
        paper="Zhang et al., ECCV 2022",
        needs=frozenset({"source images"}),
        fails_when="the labelled images are of another domain than the stream",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"imagenet": {"alpha": 1.17, "beta": 1.0}}
    features: Tensor | None = field(default=None, metadata={"recorded": False}, compare=False, repr=False)
    labels: Tensor | None = field(default=None, metadata={"recorded": False}, compare=False, repr=False)
    shots: int = 16
    alpha: float = 1.17
    beta: float = 1.0

    def check(self) -> None:
        super().check()
        whole(1, shots=self.shots)
        sizes(alpha=self.alpha, beta=self.beta)

    def keep(self, state: State, model: VisionLanguage) -> None:
        classes, width = model.text_features.shape
        Cache.declare(state, "labelled", classes, self.shots, width)
        for name in ("features", "entropies", "counts"):  # constants, also of an adaptation that was loaded
            slot = state.table.slots[f"method.labelled.{name}"]
            slot.initial = slot.tensor

    def ready(self, state: State) -> None:
        features, labels = self._checked(*pair(state).text_features.shape)
        kept = direction(direction(features.float()).mean(0) if features.ndim == 3 else features).cpu()
        wrong = wrong_rows(kept)
        if wrong is not None:
            raise ValueError(f"the views of labelled images cancel one another out in {wrong}. Check their features.")
        cache = Cache.of(state, "labelled")
        for row, label in zip(kept, labels.tolist(), strict=True):
            cache.add(label, row, 0.0)

    def _checked(self, classes: int, width: int) -> tuple[Tensor, Tensor]:
        """Features and labels that fit the texts and one another."""
        features, labels = self.features, self.labels
        shapes = [None if each is None else list(each.shape) for each in (features, labels)]
        if features is None or labels is None or features.ndim not in (2, 3) or labels.shape != features.shape[-2:-1]:
            raise ValueError(
                f"found labelled features and labels {shapes}, expected [n, D] or [E, n, D], and [n]. Pass features= "
                "and labels= of a few images of each class, or choose a method without labels, such as tda."
            )
        if not features.numel() or features.shape[-1] != width:
            raise ValueError(
                f"found labelled features {shapes[0]}, expected rows of {width} numbers, as texts have, of one image "
                "or more. Encode images by the encoder that the texts belong to."
            )
        wrong = wrong_rows(features.flatten(0, -2))
        if wrong is not None:
            raise ValueError(f"the labelled features have {wrong}. Leave these images out, or encode them again.")
        if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
            raise ValueError(f"found labels {labels.dtype}, expected whole numbers, such as labels.long().")
        if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"found labels from {int(labels.min())} to {int(labels.max())}, expected those of {classes} classes, "
                "from 0. Number them as the rows of the text features."
            )
        return features, labels

    def answer(self, state: State, sample: Sample, *, learn: bool) -> Tensor:
        cache = Cache.of(state, "labelled")
        votes = affinity(cache.features @ sample.query, self.beta).mul(cache.present).sum(1)
        return sample.logits[0] + self.alpha * votes
