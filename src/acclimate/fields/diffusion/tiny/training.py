"""How the small diffusion transformers are trained: rectified flow, with a few labels left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from acclimate.fields.diffusion.tiny.model import NOTHING, cifar10_dit, digits_dit
from acclimate.models.cache import kept_weights
from acclimate.models.recipes import Recipe

__all__ = ["DIFFUSION", "FlowRecipe", "load_dit"]

TIMES = 1000
"""What time 1, pure noise, is called among the model's timesteps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowRecipe(Recipe):
    """Straight paths from noise to images, whose velocity is learned.

    `L = mean (v(x_t, t, y) - (e - x))^2` with `x_t = (1 - t) x + t e`, images x in [-1, 1], e standard normal, t
    uniform in [0, 1]; for a share of the images y is no class. What is counted as right: the share of the velocity's
    mean square that is explained.

    Arguments: `side`, pixels, a divisor of the data set's: images are averaged down to it; `channels`, 1 for the
    first alone, 3 for all; `unlabelled`, the share of images whose label is left out.

    Source: Liu, Gong, Liu: Flow Straight and Fast, ICLR 2023 (arXiv 2209.03003).
    """

    side: int
    channels: int
    unlabelled: float = 0.1

    def noised(self, images: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images in [0, 1] `[B, 3, H, W]` as points of paths `[B, channels, side, side]`, their times `[B]` and their
        velocities."""
        clean = 2 * F.avg_pool2d(images[:, : self.channels], images.shape[-1] // self.side) - 1
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        time = torch.rand(len(clean), generator=generator).to(clean)
        share = time.view(-1, 1, 1, 1)
        return (1 - share) * clean + share * noise, time, noise - clean

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, class_weights: Tensor | None, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        points, time, velocity = self.noised(images, generator)
        left_out = (torch.rand(len(labels), generator=generator) < self.unlabelled).to(labels.device)
        given = torch.where(left_out, NOTHING, labels)
        found: Tensor = model(points, timestep=TIMES * time, class_labels=given, return_dict=False)[0]
        loss = F.mse_loss(found, velocity)
        explained = 1 - loss.detach() / velocity.square().mean()
        return loss, explained.clamp_min(0) * len(labels)


DIFFUSION: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        FlowRecipe(
            name="digits-dit",
            dataset="digits",
            build=digits_dit,
            side=16,
            channels=1,
            epochs=48,
            batch_size=32,
            learning_rate=2e-3,
            optimizer="adamw",
            weight_decay=0.01,
            shift=0,
        ),
        FlowRecipe(
            name="cifar10-dit",
            dataset="cifar10",
            build=cifar10_dit,
            side=32,
            channels=3,
            epochs=2,
            batch_size=32,
            learning_rate=1e-3,
            optimizer="adamw",
            weight_decay=0.01,
            shift=0,
            flip=True,
        ),
    )
}
"""The recipes by name, for `acclimate.models.train`."""


def load_dit(name: str) -> nn.Module:
    """One of `DIFFUSION` with the weights that were trained for it, in evaluation mode.

    Raises ValueError for another name, and FileNotFoundError where there are no weights yet.
    """
    if name not in DIFFUSION:
        raise ValueError(f"there is no diffusion transformer {name!r}; expected one of {', '.join(DIFFUSION)}.")
    path: Path = kept_weights(DIFFUSION[name])
    if not path.is_file():
        raise FileNotFoundError(
            f"there are no weights of {name!r}. Train it once: `acclimate train {name}`, which keeps them in "
            f"{path.parent}."
        )
    return DIFFUSION[name].build(path)
