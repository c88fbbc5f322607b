"""Images one after the other, as training-free methods take them, and the answers to a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.state import State
from acclimate.fields.vision_language.model import VisionLanguage

__all__ = ["Sample", "encoded", "pair", "shares"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, on the CPU in single precision: unit features of its views `[V, D]`, the first its own; logits
    `[V, K]` and their predictions; the auxiliary feature `[A]`, if it was asked for."""

    views: Tensor
    logits: Tensor
    predictions: Tensor
    auxiliary: Tensor | None

    @property
    def query(self) -> Tensor:
        return self.views[0]

    def sure(self, share: float) -> Tensor:
        """Numbers of the `max(1, floor(share V))` views whose predictions have the least entropy, those first."""
        return doubt(self.predictions).argsort(stable=True)[: max(1, int(share * len(self.views)))]


def doubt(predictions: Tensor) -> Tensor:
    """Entropy of predictions `[..., K]`, in nats."""
    return torch.special.entr(predictions).sum(-1)


def pair(state: State) -> VisionLanguage:
    """The model. ValueError for one that is no vision-language model."""
    model = state.model
    if not isinstance(model, VisionLanguage):
        raise ValueError(
            f"this method compares images with text features, which {type(model).__name__} has not. Adapt a "
            "VisionLanguage model, or call vision_language.adapt(image_encoder, text_features, ...)."
        )
    return model


def encoded(state: State, x: Tensor, *, auxiliary: bool = False) -> Iterator[Sample]:
    """Answer a batch by the model alone, and give its images one by one.

    Every view is encoded once, all images together; the answers are the caller's to replace.
    """
    model = pair(state)
    with torch.no_grad(), model.looking(auxiliary=auxiliary) as seen:
        state.forward(x)
        assert seen.views is not None
        logits = model.logits(seen.views)
    state.forwards += seen.views.shape[1] - 1
    predictions = logits.softmax(-1)
    parts = [part.to("cpu", torch.float32) for part in (seen.views, logits, predictions)]
    found = [None] * len(x) if seen.auxiliary is None else seen.auxiliary.to("cpu", torch.float32)
    for number in range(len(x)):
        yield Sample(parts[0][number], parts[1][number], parts[2][number], found[number])


def shares(scores: Tensor) -> Tensor:
    """Logits whose softmax are the shares of scores >= 0."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()


def in_turn(samples: Iterator[Sample], answer: Callable[[Sample], Tensor], like: Tensor) -> Tensor:
    """The answers `[N, K]` to samples, each given after those before it, where `like` is."""
    return torch.stack([answer(sample) for sample in samples]).to(like.device)
