"""How the small encoders are trained: images with captions, and images alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from acclimate.core.storage import fingerprint
from acclimate.fields.vision_language.tiny.captions import Captions, looks
from acclimate.fields.vision_language.tiny.towers import TinyClip, TinySight, tiny_clip, tiny_sight
from acclimate.models.cache import kept_weights
from acclimate.models.recipes import Recipe
from acclimate.parts.crop import crop_and_flip
from acclimate.parts.features import unit
from acclimate.parts.views import blur, grey, jitter

__all__ = ["TINY", "CaptionRecipe", "SightRecipe", "load_tiny"]

_GREY = 0.2
_RADIUS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionRecipe(Recipe):
    """Images and captions of a batch find each other.

    `L = (H(Y, softmax S) + H(Y', softmax S')) / 2` over the similarities S `[B, B]` of images and captions and their
    transpose; Y has the same share for every caption that is true of an image, since a caption may be true of several.
    What is counted as right: images whose nearest plain text is their class's.
    """

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, class_weights: Tensor | None, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(model, TinyClip)
        captions = Captions(model.names)
        texts, true = captions.draw(labels.cpu(), looks(images).cpu(), generator)
        plain = [captions.text(label) for label in range(len(model.names))]
        similarity = model(images, [*texts, *plain])
        true, near = true.to(similarity.device), similarity[:, : len(texts)]
        loss = _found(near, true) + _found(near.T, true.T)
        right = (similarity.detach()[:, len(texts) :].argmax(1) == labels).sum()
        return loss / 2, right


@dataclass(frozen=True, kw_only=True, slots=True)
class SightRecipe(Recipe):
    """A view of an image is as near to the other images as a teacher finds the image itself; labels are not used.

    `L = H(softmax(U U^T / teacher_temperature), softmax(V U^T / temperature))`, rows U of the teacher's features of the
    images, V of the model's of one view each, all of unit length. A view is a crop of `area` at least, mirrored
    half of the time, brighter, of more contrast and colour by up to `colour` or less so, grey for a fifth of the
    images, blurred for half of them with a deviation of up to `blurred` pixels, and with pixel noise of up to `noise`
    for half. What is counted as right: views whose nearest image is their own.

    Arguments: `teacher`, a recipe of an image-text model whose images' side teaches.

    Source: SEED (Fang et al., ICLR 2021, arXiv 2101.04731), the batch in place of its queue.
    """

    teacher: str = "clip-tiny"
    temperature: float = 0.2
    teacher_temperature: float = 0.05
    area: float = 0.2
    colour: float = 0.6
    noise: float = 0.1
    blurred: float = 1.5

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, class_weights: Tensor | None, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(model, TinySight)
        with torch.no_grad():
            taught = unit(_teacher(kept_weights(TINY[self.teacher])).to(images.device)(images))
        near = unit(model(self._view(images, generator))) @ taught.T
        aim = (taught @ taught.T / self.teacher_temperature).softmax(1)
        right = (near.detach().argmax(1) == torch.arange(len(near), device=near.device)).sum()
        return F.cross_entropy(near / self.temperature, aim), right

    def numbers(self) -> dict[str, str | int | float]:
        """All choices, the teacher's weights among them. FileNotFoundError where these are not trained yet."""
        taught = fingerprint(_teacher(_trained(self.teacher)))
        return {**super(SightRecipe, self).numbers(), "taught": taught}

    def _view(self, images: Tensor, generator: Generator) -> Tensor:
        def drawn(low: float, high: float) -> Tensor:
            return (torch.rand(len(images), generator=generator) * (high - low) + low).to(images).view(-1, 1, 1, 1)

        view = crop_and_flip(images, "resized", generator, area=(self.area, 1.0))
        for kind in ("brightness", "contrast", "saturation"):
            view = jitter(view, kind, drawn(1 - self.colour, 1 + self.colour))
        view = torch.where(drawn(0, 1) < _GREY, grey(view), view)
        soft = blur(F.pad(view, (_RADIUS,) * 4, "reflect"), drawn(0.1, self.blurred).view(-1, 1), _RADIUS)
        view = torch.where(drawn(0, 1) < 0.5, soft, view)
        level = drawn(0, self.noise) * (drawn(0, 1) < 0.5)
        grain = torch.randn(view.shape, generator=generator)
        return (view + grain.to(view) * level).clamp(0, 1)


def _found(near: Tensor, true: Tensor) -> Tensor:
    """Cross-entropy from equal shares of what is true to a softmax of similarities, mean over rows."""
    return -((true / true.sum(1, keepdim=True)) * near.log_softmax(1)).sum(1).mean()


_CLIP = CaptionRecipe(
    name="clip-tiny",
    dataset="cifar10",
    build=tiny_clip,
    epochs=8,
    batch_size=128,
    learning_rate=3e-3,
    optimizer="adamw",
    weight_decay=0.05,
    flip=True,
)
_SIGHT = SightRecipe(
    name="sight-tiny",
    dataset="cifar10",
    build=tiny_sight,
    epochs=6,
    batch_size=256,
    learning_rate=3e-3,
    optimizer="adamw",
    weight_decay=0.01,
    shift=0,
)
TINY: dict[str, Recipe] = {recipe.name: recipe for recipe in (_CLIP, _SIGHT)}
"""The recipes by name: the image-text model, and the second encoder; for `acclimate.models.train`."""


def load_tiny(name: str) -> nn.Module:
    """One of `TINY` with the weights that were trained for it, in evaluation mode.

    Raises FileNotFoundError where there are none yet.
    """
    return TINY[name].build(_trained(name))


def _trained(name: str) -> Path:
    """The file of a recipe's weights."""
    path = kept_weights(TINY[name])
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights of {name!r}. Train it once: `acclimate train {name}`.")
    return path


@lru_cache(maxsize=1)
def _teacher(path: Path) -> nn.Module:
    """The images' side of an image-text model, with nothing to learn."""
    return tiny_clip(path).image_encoder.requires_grad_(False)
