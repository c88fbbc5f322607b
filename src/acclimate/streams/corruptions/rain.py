"""Rain: bright streaks of several lengths over a dull, hazy image."""

import math

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.motion import blur_along
from acclimate.streams.corruptions.zoom import magnify

_MIST = (0.58, 0.61, 0.66)
_WIDTH = 1 / 160
_LAYERS = ((0.06, 1.0, 0.55), (0.12, 0.4, 0.8), (0.25, 0.12, 1.0))
"""From far to near: length of a streak in short sides of the image, share of the drops, brightness."""


def rain(images: Tensor, draws: Draws, amount: float, strength: float, haze: float, light: float) -> Tensor:
    r"""Falling rain: :math:`y + a S (1 - y)` with :math:`y = l\,(x + h\,(\text{mist} - x))`.

    The streaks S in [0, 1] are the maximum of three layers, from far, where they are many, short and faint, to near.
    A drop is a pixel drawn by chance, widened by 1/160 of the short side if that is more than a pixel, and drawn
    out with a gaussian tail along a line that is steep (70 to 110 degrees) and the same for all drops of an image.

    No published generator: made for streams of road scenes; lengths and widths go with the size of the image.

    Arguments:
        amount: share of the pixels with a drop of the farthest layer, in (0, 1).
        strength: a in [0, 1], how bright a streak can get.
        haze: h in [0, 1], the share of grey mist.
        light: l in [0, 1], what is left of the daylight.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "rain", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    height, width = images.shape[-2:]
    short = min(height, width)
    angle = draws.uniform(0, low=-110.0, high=-70.0)
    streaks = torch.zeros_like(images[:, :1])
    for number, (length, share, brightness) in enumerate(_LAYERS, start=1):
        drops = (draws.uniform(number, 1, height, width) < amount * share).float()
        radius = max(1.0, length * short / 2)
        tails = blur_along(magnify(drops, max(1.0, short * _WIDTH)), angle, radius, radius)
        # As bright at its head as before the blur, which spreads it over this many pixels.
        spread = sum(math.exp(-0.5 * (step / radius) ** 2) for step in range(2 * math.ceil(radius) + 1))
        streaks = torch.maximum(streaks, tails.mul_(spread).clamp_(max=1.0).mul_(brightness))
    mist = torch.tensor(_MIST, device=images.device)[:, None, None]
    dull = (images + (mist - images) * haze) * light
    return dull + (1 - dull) * (streaks * strength)
