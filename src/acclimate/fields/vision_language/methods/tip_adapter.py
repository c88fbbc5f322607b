"""Tip-Adapter: a few labelled images of each class vote, by how alike they are to the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from acclimate.core.config import at_least, whole
from acclimate.core.method import Card
from acclimate.core.state import State
from acclimate.fields.vision_language.caches import Cache
from acclimate.fields.vision_language.method import OneByOne, registry
from acclimate.fields.vision_language.methods.tda import affinity
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.samples import Sample, pair
from acclimate.parts.features import unit

__all__ = ["TipAdapter"]


@registry.register("tip-adapter")
@dataclass(frozen=True, kw_only=True)
class TipAdapter(OneByOne):
    """`score = l + alpha sum exp(-beta (1 - q . k)) onehot` over features k of labelled images: a few-shot reference.

    Nothing is learned from the stream.

    Arguments: `features` `[n, D]` of labelled images, or `[E, n, D]` of E views of each, which are averaged, and
    `labels` int64 `[n]`: of each class the first `shots` are kept, in declared state, so that a saved adaptation needs
    them no more; `alpha` 1.17 and `beta` 1 (published for ImageNet; elsewhere chosen on validation images).

    Raises ValueError without labelled images, and for labels that are no class.
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
        at_least(0, alpha=self.alpha, beta=self.beta)

    def keep(self, state: State, model: VisionLanguage) -> None:
        classes, width = model.text_features.shape
        Cache.declare(state, "labelled", classes, self.shots, width)
        for name in ("features", "entropies", "counts"):  # constants, also of an adaptation that was loaded
            slot = state.table.slots[f"method.labelled.{name}"]
            slot.initial = slot.tensor

    def ready(self, state: State) -> None:
        features, labels, classes = self.features, self.labels, len(pair(state).text_features)
        if features is None or labels is None or features.ndim not in (2, 3) or features.shape[-2] != len(labels):
            found = [None if each is None else list(each.shape) for each in (features, labels)]
            raise ValueError(
                f"found labelled features and labels {found}, expected [n, D] or [E, n, D], and [n]. Pass features= "
                "and labels= of a few images of each class, or choose a method without labels, such as tda."
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"found labels from {int(labels.min())} to {int(labels.max())}, expected those of {classes} classes, "
                "from 0. Number them as the rows of the text features."
            )
        kept = unit(features.float().mean(0) if features.ndim == 3 else features.float()).cpu()
        cache = Cache.of(state, "labelled")
        for row, label in zip(unit(kept), labels.tolist(), strict=True):
            cache.add(label, row, 0.0)

    def answer(self, state: State, sample: Sample, *, learn: bool) -> Tensor:
        cache = Cache.of(state, "labelled")
        votes = affinity(cache.features @ sample.query, self.beta).mul(cache.present).sum(1)
        return sample.logits[0] + self.alpha * votes
