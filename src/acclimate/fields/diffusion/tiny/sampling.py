"""Images out of noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from acclimate.core.config import whole
from acclimate.fields.diffusion.tiny.model import NOTHING
from acclimate.streams.shared import require

__all__ = ["sample", "start_noise"]

Seen = Callable[[int, Tensor], None]


def start_noise(model: nn.Module, count: int, seed: int = 0) -> Tensor:
    """Standard normal `[count, channels, side, side]` of the model's size; equal seeds begin alike at any count."""
    whole(0, seed=seed)
    config: Any = model.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    each = [torch.randn(shape, generator=Generator().manual_seed(seed * 1_000_003 + number)) for number in range(count)]
    return torch.stack(each)


@torch.no_grad()
def sample(
    model: nn.Module,
    labels: Tensor,
    noise: Tensor,
    *,
    steps: int = 28,
    guidance: float = 1.0,
    scheduler: Any = None,
    seen: Seen | None = None,
) -> Tensor:
    """Images about in [-1, 1], `[B, channels, side, side]`, by a class-conditional transformer that predicts velocity.

    Nothing is drawn at random: equal noise and labels give equal images.

    Arguments:
        model: called as `model(x, timestep=[B], class_labels=[B], return_dict=False)`.
        labels: int64 `[B]`, from 0 to 9, or 10 for no class.
        noise: `[B, channels, side, side]`, standard normal.
        steps: evaluations of the model, or half of them with guidance.
        guidance: g in `v = v_nothing + g (v_label - v_nothing)`; 1 asks the model once a step, others twice, first with
            the labels.
        scheduler: of diffusers, for flow matching; `FlowMatchEulerDiscreteScheduler()` by default.
        seen: called after each step with its number, from 0, and the sample.

    Raises ImportError without diffusers, and ValueError for labels that do not go with the noise.
    """
    whole(1, steps=steps)
    if labels.shape != noise.shape[:1]:
        raise ValueError(f"found labels {list(labels.shape)} for noise {list(noise.shape)}; expected one for each.")
    diffusers: Any = require("diffusers", "Sampling", "diffusion")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler() if scheduler is None else scheduler
    scheduler.set_timesteps(steps)

    def velocity(x: Tensor, time: Tensor, classes: Tensor) -> Tensor:
        return model(x, timestep=time.expand(len(x)), class_labels=classes, return_dict=False)[0]

    x = noise
    for number, time in enumerate(scheduler.timesteps):
        found = velocity(x, time, labels)
        if guidance != 1.0:
            plain = velocity(x, time, torch.full_like(labels, NOTHING))
            found = plain + guidance * (found - plain)
        x = scheduler.step(found, time, x, return_dict=False)[0]
        if seen is not None:
            seen(number, x)
    return x
