"""Snow: streaks of blurred noise over a whitened image."""

import torch
from torch import Tensor

from acclimate.streams.corruptions.colour import grey
from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.motion import blur_along
from acclimate.streams.corruptions.zoom import magnify


def snow(
    images: Tensor,
    draws: Draws,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    keep: float,
) -> Tensor:
    r"""Falling snow: :math:`k x + (1 - k) \max(x, \tfrac32 g + \tfrac12) + S + \mathrm{rot}_{180} S`, g the grey value.

    The flakes S are normal noise, magnified, zero below the threshold, and blurred along a line that is
    steep (45 to 135 degrees) and the same for all flakes of an image.

    Arguments:
        mean, deviation: of the noise.
        zoom: magnification of the noise, at least 1: the size of a flake in pixels.
        threshold: noise below it is no flake.
        radius, sigma: of the motion blur, in pixels.
        keep: k in (0, 1), the share of the image left as it is.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "snow", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    height, width = images.shape[-2:]
    noise = draws.normal(0, 1, height, width).mul_(deviation).add_(mean)
    flakes = magnify(noise, zoom)
    flakes = flakes.masked_fill(flakes < threshold, 0.0).clamp_(0.0, 1.0)
    eight_bits = flakes.mul_(255).add_(1e-3).floor_().div_(255)
    streaks = blur_along(eight_bits, draws.uniform(1, low=-135.0, high=-45.0), radius, sigma)
    whitened = torch.maximum(images, grey(images) * 1.5 + 0.5)
    return images * keep + whitened * (1 - keep) + streaks + streaks.flip(2, 3)
