"""The same images under a few simple shifts: what a layer sees of a domain, apart from what it sees of content."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PSEUDO_DOMAINS", "pseudo_domains"]

_NOISE, _CONTRAST, _BRIGHTNESS = 0.10, 0.4, 0.25
_REACH = 4  # of the blur, in standard deviations


def _blurred(x: Tensor, generator: torch.Generator) -> Tensor:
    side = max(x.shape[2:])
    sigma = side / 32 if side <= 64 else side / 64
    radius = max(1, round(_REACH * sigma))
    taps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.softmax(-(taps**2) / (2 * sigma**2), 0).view(1, 1, -1)
    for axis in range(2, x.ndim):
        rows = x.movedim(axis, -1)
        padded = F.pad(rows.reshape(1, -1, rows.shape[-1]), (radius, radius), "replicate")
        x = F.conv1d(padded.transpose(0, 1), kernel).view(rows.shape).movedim(-1, axis)
    return x


def _noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + _NOISE * torch.randn(x.shape, generator=generator).to(x.device, x.dtype)


PSEUDO_DOMAINS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "identity": lambda x, generator: x,
    "noise": _noisy,
    "blur": _blurred,
    "contrast": lambda x, generator: x.mean(tuple(range(1, x.ndim)), keepdim=True).lerp(x, _CONTRAST),
    "brightness": lambda x, generator: x + _BRIGHTNESS,
}
"""Shifts of images in [0, 1]: noise of 0.10; blur of 1 pixel at 32 x 32, growing with the side, half of that above 64;
contrast times 0.4 about the image's mean; brightness plus 0.25. The first is none."""


@torch.no_grad()
def pseudo_domains(x: Tensor, extremes: tuple[float, float], generator: torch.Generator) -> list[Tensor]:
    """`x`, `[N, C, ...]` with positions, under each of `PSEUDO_DOMAINS`, clipped to its range.

    The range is [0, 1], wider where the lowest and highest value, `extremes`, are beyond it: shifts are shares of it.
    """
    low, high = min(0.0, extremes[0]), max(1.0, extremes[1])
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    unit = (wide - low) / (high - low)
    with torch.autocast(x.device.type, enabled=False):
        shifted = [shift(unit, generator).clamp(0, 1) for shift in PSEUDO_DOMAINS.values()]
    return [(each * (high - low) + low).to(x.dtype) for each in shifted]
