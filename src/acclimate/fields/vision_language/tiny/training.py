"""How the small encoders are trained: images with captions, and images alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from acclimate.fields.vision_language.tiny.captions import Captions, looks
from acclimate.fields.vision_language.tiny.towers import TinyClip, TinySight, tiny_clip, tiny_sight
from acclimate.models.cache import kept_weights
from acclimate.models.recipes import Recipe
from acclimate.parts.crop import crop_and_flip
from acclimate.parts.features import unit
from acclimate.parts.views import grey, jitter

__all__ = ["TINY", "CaptionRecipe", "SightRecipe", "load_tiny"]

_GREY = 0.2


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
    """Two views of an image know each other among those of all (NT-Xent), at this `temperature`; labels are not used.

    A view is a crop of `area` at least, mirrored half of the time, brighter, of more contrast and colour by up to
    `colour` or less so, grey for a fifth of the images, and with pixel noise of up to `noise` for half of them. What
    is counted as right: views whose nearest other is their own.
    """

    temperature: float = 0.2
    area: float = 0.2
    colour: float = 0.6
    noise: float = 0.1

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, class_weights: Tensor | None, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(model, TinySight)
        views = torch.cat([self._view(images, generator) for _ in range(2)])
        rows = unit(model.head(model(views)))
        near = (rows @ rows.T) / self.temperature
        near.fill_diagonal_(-torch.inf)
        own = torch.arange(len(views), device=views.device).roll(len(images))
        right = (near.detach().argmax(1) == own).sum() / 2
        return F.cross_entropy(near, own), right

    def _view(self, images: Tensor, generator: Generator) -> Tensor:
        def drawn(low: float, high: float) -> Tensor:
            return (torch.rand(len(images), generator=generator) * (high - low) + low).to(images).view(-1, 1, 1, 1)

        view = crop_and_flip(images, "resized", generator, area=(self.area, 1.0))
        for kind in ("brightness", "contrast", "saturation"):
            view = jitter(view, kind, drawn(1 - self.colour, 1 + self.colour))
        view = torch.where(drawn(0, 1) < _GREY, grey(view), view)
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
    epochs=8,
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
    recipe = TINY[name]
    path = kept_weights(recipe)
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights of {name!r}. Train it once: `acclimate train {name}`.")
    return recipe.build(path)
