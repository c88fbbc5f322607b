"""Images one after the other, as training-free methods take them, and the answers to a batch of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.state import State
from acclimate.fields.vision_language.model import Seen, VisionLanguage

__all__ = ["Sample", "doubt", "in_turn", "pair", "shares"]

_UNFIT = "no row of the batch is fit to learn from"


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


def in_turn(
    state: State,
    x: Tensor,
    views: Callable[[Tensor], Tensor],
    answer: Callable[[Sample], Tensor],
    *,
    auxiliary: bool = False,
) -> Tensor:
    """Answers `[N, K]` to a batch whose images are encoded together and answered in turn, in single precision.

    An image with a feature that is zero or not finite, of a view or of the auxiliary encoder, is as if it had not come:
    the others are encoded without it, and the model's own answer stands, or no opinion where that is not finite. How
    many were held is noted. A batch of nothing else is refused.

    Arguments: `views`, from images to views of them, by how many have been answered; `answer`, of one image.
    """
    kept, found = torch.arange(len(x)), _looked(state, views(x), auxiliary)
    whole, fit = found, _fit(found)
    while bool(fit.any()) and not bool(fit.all()):
        kept = kept[fit]
        found = _looked(state, views(x[kept.to(x.device)]), auxiliary, kept)
        fit = _fit(found)
    with _unmixed(x.device):
        own = _first(state, whole).nan_to_num(0.0, 0.0, 0.0)
        if not bool(fit.any()):
            state.demands.append((_UNFIT, torch.zeros((), dtype=torch.bool, device=x.device)))
            state.note(held=len(x))
            # a host reads the verdict at once and asks the source instead of what is not finite
            return own if x.device.type != "cpu" else torch.full_like(own, torch.nan)
        answers = torch.stack([answer(sample) for sample in _samples(state, found)]).to(x.device)
        if len(kept) == len(x):
            return answers
        state.note(held=len(x) - len(kept))
        return own.index_copy(0, kept.to(x.device), answers)


def _looked(state: State, x: Tensor, auxiliary: bool, rows: Tensor | None = None) -> Seen:
    """What the model sees of images, every view of them; of some `rows` of the batch alone, where it is not all."""
    before = state.forwards
    with torch.no_grad(), pair(state).looking(auxiliary=auxiliary) as seen:
        state.forward(x, answering=rows is None, rows=rows)
    assert seen.views is not None
    state.forwards += (seen.views.shape[1] - 1) * (state.forwards - before)
    return seen


def _fit(seen: Seen) -> Tensor:
    """Which images have features of length 1 throughout, `[N]`: those without a direction are zero or no numbers."""
    assert seen.views is not None
    fit = (seen.views.square().sum(-1) > 0.5).all(1)
    return (fit if seen.auxiliary is None else fit & (seen.auxiliary.square().sum(-1) > 0.5)).cpu()


def _first(state: State, seen: Seen) -> Tensor:
    """The model's own answers, of the first view of each image."""
    assert seen.views is not None
    return pair(state).logits(seen.views[:, 0])


def _samples(state: State, seen: Seen) -> Iterator[Sample]:
    assert seen.views is not None
    logits = pair(state).logits(seen.views)
    parts = [part.to("cpu", torch.float32) for part in (seen.views, logits, logits.softmax(-1))]
    found = [None] * len(logits) if seen.auxiliary is None else seen.auxiliary.to("cpu", torch.float32)
    for number in range(len(logits)):
        yield Sample(parts[0][number], parts[1][number], parts[2][number], found[number])


@contextlib.contextmanager
def _unmixed(device: torch.device) -> Iterator[None]:
    """Within this block nothing is computed in mixed precision, which is too coarse for entropies of many classes."""
    with torch.autocast("cpu", enabled=False), torch.autocast(device.type, enabled=False):
        yield


def shares(scores: Tensor) -> Tensor:
    """Logits whose softmax are the shares of scores >= 0."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
