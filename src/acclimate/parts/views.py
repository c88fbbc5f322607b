"""Random views of images: the augmentation of CoTTA, LAW and PALM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.core.config import one_of

__all__ = ["Views", "blur", "check_images", "check_views", "grey", "jitter"]

_RANGES = {
    "hard": {
        "brightness": (0.6, 1.4),
        "contrast": (0.7, 1.3),
        "saturation": (0.5, 1.5),
        "hue": (-0.06, 0.06),
        "gamma": (0.7, 1.3),
        "degrees": (-15.0, 15.0),
        "scale": (0.9, 1.1),
        "sigma": (0.001, 0.5),
    },
    "soft": {
        "brightness": (0.8, 1.2),
        "contrast": (0.85, 1.15),
        "saturation": (0.75, 1.25),
        "hue": (-0.03, 0.03),
        "gamma": (0.85, 1.15),
        "degrees": (-8.0, 8.0),
        "scale": (0.95, 1.05),
        "sigma": (0.001, 0.25),
    },
}
_JITTERS = ("brightness", "contrast", "saturation", "hue", "gamma")
_GREY = (0.2989, 0.587, 0.114)
_RADIUS = 2  # of the 5x5 blur
_SHIFT = 16  # translation up to 1/16 of the padded size, which is twice the image
_NOISE = 0.005


@dataclass(frozen=True, kw_only=True)
class Views:
    """One random view of a batch of images `[N, C, H, W]` in [0, 1], again in [0, 1].

    In this order: colour jitter (brightness, contrast, saturation, hue, gamma in random order), rotation,
    translation and scaling with the edges repeated, Gaussian blur 5x5, horizontal flip with probability
    1/2, Gaussian noise of 0.005. Images without three channels skip saturation and hue.

    Arguments: `strength`, "hard" as published or "soft"; `per_sample`, draw parameters for each image instead of
    once for the batch (published: once; the noise always differs); `blurred` and `noisy`, whether to blur and to
    add noise.
    """

    strength: str = "hard"
    per_sample: bool = False
    blurred: bool = True
    noisy: bool = True

    def __post_init__(self) -> None:
        one_of(*_RANGES, strength=self.strength)

    @torch.no_grad()
    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if x.ndim != 4:
            raise ValueError(f"views are made of images [N, C, H, W], found shape {list(x.shape)}.")
        kind = x.dtype
        x = x.float() if kind in (torch.float16, torch.bfloat16) else x  # half a pixel is more than they resolve
        draws = len(x) if self.per_sample else 1

        def uniform(low: float, high: float) -> Tensor:
            drawn = torch.rand(draws, generator=generator) * (high - low) + low
            return drawn.to(x.device, x.dtype).view(-1, 1, 1, 1)

        ranges = _RANGES[self.strength]
        x = x.clamp(0, 1).contiguous()
        for number in torch.randperm(len(_JITTERS), generator=generator).tolist():
            x = jitter(x, _JITTERS[number], uniform(*ranges[_JITTERS[number]]))
        height, width = x.shape[-2:]
        down, across = (uniform(-size / _SHIFT * 2, size / _SHIFT * 2).round() for size in (height, width))
        x = _affine(x, uniform(*ranges["degrees"]).deg2rad(), uniform(*ranges["scale"]), across, down)
        x = blur(x, uniform(*ranges["sigma"])) if self.blurred else x[..., _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
        x = torch.where(uniform(0, 1) < 0.5, x.flip(-1), x)
        if not self.noisy:
            return x.clamp(0, 1).to(kind)
        noise = torch.randn(x.shape, generator=generator).to(x.device, x.dtype)
        return x.add_(noise, alpha=_NOISE).clamp_(0, 1).to(kind)


def check_views(**values: Any) -> None:
    """ValueError unless every value can make views."""
    for name, value in values.items():
        if not callable(value):
            raise ValueError(f"{name} must be a callable (x, generator) -> x, found {value!r}.")


def check_images(method: str, x: Tensor, extremes: tuple[float, float] | None, own: str = "views=") -> None:
    """ValueError unless `x` is images `[N, C, H, W]`, in [0, 1] if extremes are given, which our views are made for.

    `own` names the arguments by which users pass views of their own, empty if there is none.
    """
    others = f"{f'pass {own} of your own, or ' if own else ''}choose a method without augmentation"
    if x.ndim != 4:
        raise ValueError(
            f"the views of {method} are made of images [N, C, H, W], found shape {list(x.shape)}. "
            f"{others[0].upper()}{others[1:]}."
        )
    low, high = extremes or (0.0, 1.0)
    if low < -0.05 or high > 1.05:
        raise ValueError(
            f"the views of {method} are made of images in [0, 1], found values from {low:.3g} to {high:.3g}. Normalise "
            f"inside the model, {others}."
        )


def grey(x: Tensor) -> Tensor:
    """Luminance of RGB, or else the mean of the channels: `[N, 1, H, W]`."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    weights = torch.tensor(_GREY, device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
    return (x * weights).sum(1, keepdim=True)


def jitter(x: Tensor, kind: str, amount: Tensor) -> Tensor:
    """Change brightness, contrast, saturation, hue or gamma of images in [0, 1]; `amount` is `[N or 1, 1, 1, 1]`."""
    if kind == "brightness":
        return (x * amount).clamp_(0, 1)
    if kind == "contrast":
        return torch.lerp(grey(x).mean((2, 3), keepdim=True), x, amount).clamp_(0, 1)
    if kind == "gamma":
        return x.clamp(1e-8, 1) ** amount
    if x.shape[1] != 3:
        return x
    if kind == "saturation":
        return torch.lerp(grey(x), x, amount).clamp_(0, 1)
    return _turn_hue(x, amount)


def _turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Shift the hue of RGB by `turn` of the circle, keeping value and saturation (HSV)."""
    red, green, blue = x.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    scale = chroma.clamp_min(1e-12).reciprocal_()
    of_green, of_blue = (blue - red).mul_(scale).add_(2), (red - green).mul_(scale).add_(4)
    sixths = torch.where(value == red, (green - blue).mul_(scale), torch.where(value == green, of_green, of_blue))
    sixths += 6 * turn.view(-1, 1, 1)
    planes: list[Tensor] = []
    for offset in (5, 3, 1):
        place = (sixths + offset).remainder_(6)
        planes.append(value - chroma * torch.minimum(place, 4 - place).clamp_(0, 1))
    return torch.stack(planes, 1)


def _affine(x: Tensor, angle: Tensor, scale: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Rotate, scale and shift about the centre; keeps a margin of the blur's radius around the image.

    Sampling the image itself with its border repeated is the same as padding it, transforming the
    padded one and cropping, without the padded pixels.
    """
    height, width = x.shape[-2:]
    rows = torch.arange(-_RADIUS, height + _RADIUS, device=x.device, dtype=x.dtype) - (height - 1) / 2
    columns = torch.arange(-_RADIUS, width + _RADIUS, device=x.device, dtype=x.dtype) - (width - 1) / 2
    angle, scale, across, down = (part.view(-1, 1, 1) for part in (angle, scale, across, down))
    v, u = rows.view(1, -1, 1) - down, columns.view(1, 1, -1) - across
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    grid = torch.stack([(cosine * u - sine * v) * 2 / width, (sine * u + cosine * v) * 2 / height], -1)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), "bilinear", "border", align_corners=False)


def blur(x: Tensor, sigma: Tensor, radius: int = _RADIUS) -> Tensor:
    """Gaussian blur over `2 radius + 1` pixels each way, consuming a margin of `radius` around the images."""
    taps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.softmax(-(taps**2) / (2 * sigma.view(-1, 1) ** 2), 1).view(-1, 2 * radius + 1, 1, 1, 1)
    for axis in (2, 3):
        size = x.shape[axis] - 2 * radius
        blurred = x.narrow(axis, 0, size) * kernel[:, 0]
        for tap in range(1, 2 * radius + 1):
            blurred.addcmul_(x.narrow(axis, tap, size), kernel[:, tap])
        x = blurred
    return x
