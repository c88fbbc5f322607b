"""What training varies: how a cell lies, and how it is stained."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from acclimate.parts.crop import sampled

__all__ = ["stained", "turned"]


def turned(images: Tensor, masks: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Half of the images turned by quarters and mirrored along an axis; of the others half turned by up to 20 degrees.

    Nearest pixels, nought outside, the canvas stays. Source: BC-SAM (arXiv 2408.06716).

    Arguments: float `[N, 3, S, S]`, int64 `[N, S, S]`.
    """
    count, side = len(images), images.shape[-1]
    draws = torch.rand(3, count, generator=generator)
    quarters = torch.randint(4, (count,), generator=generator) * (math.pi / 2)
    slight = torch.randint(-20, 20, (count,), generator=generator) * (math.pi / 180)
    whole = draws[0] < 0.5
    angle = torch.where(whole, quarters, torch.where(draws[1] < 0.5, slight, 0.0))
    down = whole & (draws[2] < 0.5)
    across = whole & ~down
    maps = _maps(angle, torch.where(across, -1.0, 1.0), torch.where(down, -1.0, 1.0), side)
    moved = sampled(images, maps, "zeros", "nearest")
    return moved, sampled(masks[:, None].float(), maps, "zeros", "nearest")[:, 0].to(torch.int64)


def _maps(angle: Tensor, across: Tensor, down: Tensor, side: int) -> Tensor:
    """Maps `[N, 2, 3]` that mirror and turn about the centre."""
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack(
        [torch.stack([cosine * across, -sine * down], 1), torch.stack([sine * across, cosine * down], 1)], 1
    )
    centre = torch.full((len(angle), 2, 1), side / 2)
    return torch.cat([turn, centre - turn @ centre], 2)


def stained(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Other colours: `x_c^g_c a_c` of each channel, mixed a little with the others, and paler or duller.

    `log g` is drawn evenly from `-strength` to `strength` and `log a` from half of that, each image and channel by
    itself; then the channels' difference from their mean is multiplied by `1 - strength` to `1 + strength`.

    Arguments: float `[N, 3, H, W]` in [0, 1]; `strength` from 0, which changes nothing, to 1.
    """
    if strength == 0:
        return images

    def drawn(channels: int) -> Tensor:
        return (2 * torch.rand(len(images), channels, 1, 1, generator=generator) - 1).to(images) * strength

    x = images.clamp(1e-4, 1) ** drawn(3).exp() * (0.5 * drawn(3)).exp()
    x = torch.lerp(x.mean(1, keepdim=True), x, 1 + drawn(1))
    return x.clamp(0, 1)
