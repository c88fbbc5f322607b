"""How each source model is trained."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from acclimate.models.augment import brightened, flipped, shifted, windows
from acclimate.models.residual import cifar10_resnet20, digits_resnet
from acclimate.models.segmenter import camvid_segmenter
from acclimate.models.transformer import cifar10_vit, digits_vit
from acclimate.models.wide_residual import wrn_16_4, wrn_28_10
from acclimate.streams.dataset import Pictures
from acclimate.streams.scenes import VOID

__all__ = ["RECIPES", "Recipe", "SceneRecipe"]

_REVISION = 1
_CHUNK = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Plain supervised training: a linear warm-up, then half a cosine.

    Arguments:
        name: what `train` and the command line call it.
        dataset: see `load_dataset`.
        build: makes the model from `seed=`.
        epochs: passes over the training split.
        batch_size: images in a step.
        learning_rate: the highest, at the end of the warm-up.
        optimizer: `sgd` with Nesterov momentum, or `adamw`.
        momentum: of SGD.
        weight_decay: on matrices and kernels, not on norms and biases; of SGD coupled.
        warmup: share of all steps.
        label_smoothing: mass spread over all classes.
        shift: random shifts up to so many pixels, zeros coming in.
        flip: mirror every other image.
    """

    name: str
    dataset: str
    build: Callable[..., nn.Module] = field(repr=False)
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1
    label_smoothing: float = 0.0
    shift: int = 4
    flip: bool = False

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0.

        >>> RECIPES["digits-resnet"].rate(99, 100) < 0.001
        True
        """
        rise = max(1, round(self.warmup * steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise + 1) / max(1, steps - rise)))

    def views(self, images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """What one step learns from: uint8 images `[B, 3, H, W]` and their labels, augmented."""
        images = shifted(images, self.shift, generator)
        return flipped(images, generator) if self.flip else images, labels

    def class_weights(self, data: Pictures) -> Tensor | None:
        """How much each class counts in the loss; None for all alike."""
        return None

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, class_weights: Tensor | None, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Mean loss of a step on float images `[B, 3, H, W]`, and how many of the B are right."""
        logits: Tensor = model(images)
        loss = F.cross_entropy(logits, labels, class_weights, ignore_index=VOID, label_smoothing=self.label_smoothing)
        known = (labels != VOID).sum()
        return loss, (logits.detach().argmax(1) == labels).sum() * len(labels) / known

    def numbers(self) -> dict[str, str | int | float]:
        """All choices, for a file's header."""
        values = asdict(self)
        del values["build"]
        if self.optimizer == "sgd":
            del values["optimizer"]  # digests and checkpoints are older than the choice
        return {**values, "revision": _REVISION}

    def digest(self) -> str:
        """Twelve hexadecimal digits which change with any choice."""
        return hashlib.sha256(json.dumps(self.numbers(), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneRecipe(Recipe):
    """Training on scenes with a label for each pixel: random windows, mirrored, lighter or darker.

    The loss is the mean cross-entropy over the pixels that have a class, each counted by
    `w_c ~ f_c^-weighting`, where `f_c` is the share of class c in the pixels of the split.

    Arguments:
        window: height and width of what a step sees.
        scales: smallest and largest magnification.
        jitter: the brightness is multiplied by 1 - jitter to 1 + jitter.
        weighting: from 0, all pixels alike, to 1, all classes alike.
    """

    window: tuple[int, int]
    scales: tuple[float, float] = (0.75, 1.5)
    jitter: float = 0.2
    weighting: float = 0.5

    def views(self, images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        cut, named = windows(images.to(torch.float32) / 255, labels, self.window, self.scales, generator)
        return brightened(cut, self.jitter, generator), named

    def class_weights(self, data: Pictures) -> Tensor | None:
        counts = torch.zeros(len(data.classes), dtype=torch.float64)
        for part in torch.arange(len(data)).split(_CHUNK):
            labels = data.answers(part).flatten()
            counts += labels[labels >= 0].bincount(minlength=len(counts))
        # A class that the split lacks is never asked for; its weight only has to be finite.
        share = counts.clamp_min(1) / counts.sum()
        weights = share**-self.weighting
        return (weights / (share * weights).sum()).to(torch.float32)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="digits-resnet",
            dataset="digits",
            build=digits_resnet,
            epochs=25,
            batch_size=50,
            learning_rate=0.03,
            # Shifts and higher rates make it robust to noise and blur, and then there is little to adapt to.
            shift=0,
        ),
        Recipe(
            name="cifar10-resnet20",
            dataset="cifar10",
            build=cifar10_resnet20,
            epochs=30,
            batch_size=128,
            learning_rate=0.2,
            flip=True,
        ),
        Recipe(
            name="digits-resnet-gn",
            dataset="digits",
            build=partial(digits_resnet, norm="group"),
            epochs=25,
            batch_size=50,
            learning_rate=0.03,
            shift=0,
        ),
        Recipe(
            name="digits-vit",
            dataset="digits",
            build=digits_vit,
            epochs=40,
            batch_size=50,
            learning_rate=2e-3,
            optimizer="adamw",
            weight_decay=0.05,
            shift=0,
        ),
        Recipe(
            name="cifar10-resnet20-gn",
            dataset="cifar10",
            build=partial(cifar10_resnet20, norm="group"),
            epochs=15,
            batch_size=128,
            learning_rate=0.1,
            flip=True,
        ),
        Recipe(
            name="cifar10-vit",
            dataset="cifar10",
            build=cifar10_vit,
            epochs=40,
            batch_size=128,
            learning_rate=2e-3,
            optimizer="adamw",
            weight_decay=0.05,
            label_smoothing=0.05,
            flip=True,
        ),
        # Batch, rate, decay and epochs of the paper; it lowers the rate in three steps.
        Recipe(
            name="wrn-28-10",
            dataset="cifar10",
            build=wrn_28_10,
            epochs=200,
            batch_size=128,
            learning_rate=0.1,
            warmup=0.02,
            flip=True,
        ),
        Recipe(
            name="wrn-16-4",
            dataset="cifar10",
            build=wrn_16_4,
            epochs=100,
            batch_size=128,
            learning_rate=0.1,
            warmup=0.02,
            flip=True,
        ),
        SceneRecipe(
            name="camvid-segmenter",
            dataset="camvid",
            build=camvid_segmenter,
            epochs=50,
            batch_size=8,
            learning_rate=0.05,
            shift=0,
            flip=True,
            window=(112, 160),
        ),
    )
}
"""The recipes by name."""
