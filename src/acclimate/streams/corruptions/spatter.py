"""Spatter: drops of water or splashes of mud on the lens."""

import torch
from torch import Tensor

from acclimate.streams.corruptions.blur import smooth
from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.edges import canny, distance_to, equalise, padded_by_reflection

_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_FARTHEST = 20
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))


def spatter(
    images: Tensor,
    draws: Draws,
    mean: float,
    deviation: float,
    size: float,
    threshold: float,
    strength: float,
    is_mud: bool,
) -> Tensor:
    r"""A liquid layer L, smoothed normal noise and zero below a threshold, colours the image.

    Mud covers: :math:`x (1 - m) + m \cdot \text{brown}`, m the smoothed indicator of L, zero below 0.8.
    Water glitters: :math:`x + m \cdot \text{turquoise}`, m proportional to L times a relief made from the distance to
    the edges of the drops (embossed and equalised), its maximum the strength.

    Arguments:
        mean, deviation: of the noise.
        size: standard deviation of its smoothing in pixels, above 0.
        threshold: noise below it is no liquid.
        strength: of water in (0, 1]; of mud, the standard deviation of the smoothing of its edge in pixels.
        is_mud: mud or water.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "spatter", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    height, width = images.shape[-2:]
    noise = draws.normal(0, height, width).mul_(deviation)
    # The mean is added afterwards: smoothing keeps constants, and the filter wants values below 4.
    liquid = smooth(noise, size).add_(mean)
    liquid = liquid.masked_fill(liquid < threshold, 0.0)
    colour = torch.tensor(_MUD if is_mud else _WATER, device=images.device)[:, None, None]
    if is_mud:
        cover = smooth((liquid > threshold).float(), strength)
        cover = cover.masked_fill(cover < 0.8, 0.0)[:, None]
        return images * (1 - cover) + colour * cover
    return images + colour * _relief(liquid, strength)[:, None]


def _relief(liquid: Tensor, strength: float) -> Tensor:
    levels = liquid.mul(255).add_(1e-3).floor_().remainder_(256).int()
    distance = distance_to(canny(levels, low=50, high=150), _FARTHEST)
    equal = equalise((_box_sum(distance) / 9).add_(1e-3).floor_().int())
    padded = padded_by_reflection(equal)
    height, width = equal.shape[-2:]
    embossed = torch.zeros_like(equal)
    for row, weights in enumerate(_EMBOSS):
        for column, weight in enumerate(weights):
            embossed += padded[:, row : row + height, column : column + width] * weight
    relief = ((_box_sum(embossed.clamp_(0, 255)) * 2 + 9) // 18).float()
    layer = levels * relief
    highest = layer.amax((1, 2), keepdim=True)
    return layer * (strength / highest.masked_fill(highest == 0, 1.0))


def _box_sum(planes: Tensor) -> Tensor:
    """Sums over 3x3 pixels, mirrored at the border; [N, H, W] -> [N, H, W]."""
    padded = padded_by_reflection(planes)
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
