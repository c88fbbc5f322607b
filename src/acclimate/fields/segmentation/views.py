"""Views that leave every pixel in its place, so that answers to them can be compared pixel by pixel."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.config import at_least
from acclimate.core.method import Method
from acclimate.parts.augmix import AugMix
from acclimate.parts.views import Views, jitter

__all__ = ["StillViews", "with_still_views"]

_RANGES = {
    "brightness": (0.6, 1.4), "contrast": (0.7, 1.3), "saturation": (0.5, 1.5), "hue": (-0.06, 0.06),
    "gamma": (0.7, 1.3),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StillViews:
    """One random view of a batch of images `[N, C, H, W]` in [0, 1]: the colour jitter of CoTTA, then noise.

    Brightness, contrast, saturation, hue and gamma in random order, drawn once for the batch. What moves pixels
    about (rotation, scaling, flips) is left out.

    Argument: `noise`, standard deviation >= 0 of the Gaussian noise.

    >>> StillViews()(torch.rand(2, 3, 8, 8), torch.Generator()).shape
    torch.Size([2, 3, 8, 8])
    """

    noise: float = 0.005

    def __post_init__(self) -> None:
        at_least(0, noise=self.noise)

    @torch.no_grad()
    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        kinds = list(_RANGES)
        view = x.float().clamp(0, 1)
        for number in torch.randperm(len(kinds), generator=generator).tolist():
            low, high = _RANGES[kinds[number]]
            amount = torch.rand(1, 1, 1, 1, generator=generator) * (high - low) + low
            view = jitter(view, kinds[number], amount.to(view))
        noise = torch.randn(view.shape, generator=generator).to(view)
        return view.add(noise, alpha=self.noise).clamp_(0, 1).to(x.dtype)


def with_still_views(method: Method) -> Method:
    """The method with `StillViews` in place of views that move pixels; methods without such views as they are."""
    if isinstance(getattr(method, "views", None), (Views, AugMix)):
        return dataclasses.replace(method, views=StillViews())
    return method
