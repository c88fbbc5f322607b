"""Zero-shot: the class whose text is nearest to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from acclimate.core.method import Card
from acclimate.core.state import State
from acclimate.fields.vision_language.method import OneByOne, registry
from acclimate.fields.vision_language.samples import Sample

__all__ = ["ZeroShot"]


@registry.register("zero-shot")
@dataclass(frozen=True, kw_only=True)
class ZeroShot(OneByOne):
    """Answer as the model does: `s q . T`. Nothing is kept.

    Which texts T is made of moves the answer by several points on fine-grained classes: see
    `vision_language.text_matrix`.

    Cost: one forward. Source: Radford et al., ICML 2021 (CLIP).
    Fails when images are unlike those that texts describe.

    Example: `vision_language.adapt(encoder, texts, method="zero-shot")`.
    """

    card: ClassVar[Card] = Card(
        summary="answers as the model does",
        paper="Radford et al., ICML 2021",
        fails_when="images are unlike those that texts describe",
    )

    def answer(self, state: State, sample: Sample, *, learn: bool) -> Tensor:
        return sample.logits[0]

    def plain(self) -> bool:
        return True
