"""Views for contrastive learning: each image is changed by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.parts.views import blur, grey, jitter

__all__ = ["strong_view", "weak_view"]

_JITTERS = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4), "hue": (-0.1, 0.1)}
_JITTERED = 0.8
_GREY = 0.2
_BLURRED = 0.5
_SIGMA = (0.1, 2.0)
_RADIUS = 6  # three times the widest sigma


@torch.no_grad()
def weak_view(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images `[N, C, H, W]`, each mirrored with probability 1/2."""
    _require_images(x)
    return _mirror(x, generator)


@torch.no_grad()
def strong_view(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images `[N, C, H, W]` in [0, 1], each with draws of its own; again in [0, 1].

    Colour jitter with probability 0.8 (brightness, contrast and saturation by 0.6..1.4, hue by up to 0.1 of the
    circle, in random order), grey with probability 0.2, Gaussian blur of sigma 0.1..2 with probability 1/2, mirrored
    with probability 1/2. Images without three channels skip saturation, hue and grey.
    """
    _require_images(x)
    kind, count = x.dtype, len(x)
    x = x.to(torch.promote_types(kind, torch.float32), copy=True, memory_format=torch.contiguous_format).clamp_(0, 1)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    def amount(drawn: Tensor, rows: Tensor) -> Tensor:
        return drawn[rows].to(x.device, x.dtype).view(-1, 1, 1, 1)

    jittered = uniform(0, 1) < _JITTERED
    order = torch.rand(count, len(_JITTERS), generator=generator).argsort(1)
    amounts = {name: uniform(*bounds) for name, bounds in _JITTERS.items()}
    for turn in order.unbind(1):
        for number, (name, drawn) in enumerate(amounts.items()):
            if len(rows := _rows(jittered & (turn == number))):
                x[rows] = jitter(x[rows], name, amount(drawn, rows))
    colourless = _rows(uniform(0, 1) < _GREY)
    if x.shape[1] == 3 and len(colourless):
        x[colourless] = grey(x[colourless]).expand(-1, 3, -1, -1)
    soft, sigma = _rows(uniform(0, 1) < _BLURRED), uniform(*_SIGMA)
    if len(soft):
        x[soft] = blur(F.pad(x[soft], (_RADIUS,) * 4, "replicate"), amount(sigma, soft), _RADIUS)
    return _mirror(x, generator).clamp_(0, 1).to(kind)


def _rows(drawn: Tensor) -> Tensor:
    """Draws are made on the CPU, so which rows they hit is known without waiting for a device."""
    return drawn.nonzero()[:, 0]


def _mirror(x: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device)
    return torch.where(drawn < 0.5, x.flip(-1), x)


def _require_images(x: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(f"views are made of images [N, C, H, W], found shape {list(x.shape)}.")
