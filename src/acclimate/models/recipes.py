"""How each source model is trained."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from torch import nn

from acclimate.models.residual import cifar10_resnet20, digits_resnet
from acclimate.models.wide_residual import wrn_16_4, wrn_28_10

__all__ = ["RECIPES", "Recipe"]

_REVISION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Plain supervised training: SGD with Nesterov momentum, a linear warm-up, then half a cosine.

    Arguments:
        name: what `train` and the command line call it.
        dataset: see `load_dataset`.
        build: makes the model from `seed=`.
        epochs: passes over the training split.
        batch_size: images in a step.
        learning_rate: the highest, at the end of the warm-up.
        momentum: of SGD.
        weight_decay: coupled, on matrices and kernels; not on norms and biases.
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

    def numbers(self) -> dict[str, str | int | float]:
        """All choices, for a file's header."""
        values = asdict(self)
        del values["build"]
        return {**values, "revision": _REVISION}

    def digest(self) -> str:
        """Twelve hexadecimal digits which change with any choice."""
        return hashlib.sha256(json.dumps(self.numbers(), sort_keys=True).encode()).hexdigest()[:12]


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
    )
}
"""The recipes by name."""
