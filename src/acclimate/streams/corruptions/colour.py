"""Changes of tone: brightness, contrast, saturate; and the grey value others need."""

from torch import Tensor

from acclimate.streams.corruptions.draws import Draws

_MEAN_BITS = 40


def grey(images: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B; [N, 3, H, W] -> [N, 1, H, W]."""
    red, green, blue = images.split(1, dim=1)
    return red * 0.299 + green * 0.587 + blue * 0.114


def brightness(images: Tensor, _: Draws, amount: float) -> Tensor:
    r"""Daylight: add to the value of hue-saturation-value, :math:`v' = \min(v + b, 1)`, hue and saturation kept.

    With :math:`v = \max(r, g, b)` that multiplies the pixel by :math:`v' / v`; black becomes the grey v'.

    Arguments:
        amount: b in [0, 1].

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "brightness", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    value = images.amax(1, keepdim=True)
    raised = (value + amount).clamp_(max=1.0)
    black = value == 0
    return (images * (raised / value.masked_fill(black, 1.0))).where(~black, raised)


def contrast(images: Tensor, _: Draws, factor: float) -> Tensor:
    r"""Lighting: :math:`(x - \bar x)\,c + \bar x`, with the mean of each image and channel.

    Arguments:
        factor: c in (0, 1).

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "contrast", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    # Summed as integers: a float sum would depend on how the reduction is split among threads.
    whole = images.double().mul_(2.0**_MEAN_BITS).long().sum((2, 3), keepdim=True)
    mean = (whole.double() / (images.shape[2] * images.shape[3] * 2.0**_MEAN_BITS)).float()
    return (images - mean).mul_(factor).add_(mean)


def saturate(images: Tensor, _: Draws, factor: float, shift: float) -> Tensor:
    r"""Scale the saturation of hue-saturation-value: :math:`s' = \mathrm{clip}(s f + t, 0, 1)`.

    With v the largest channel and :math:`s = (v - \min) / v`, hue and value are kept by
    :math:`x' = v - (v - x)\,s' / s`. Greys have no hue; as in the published files they count as red.

    Arguments:
        factor: f >= 0.
        shift: t in [0, 1].

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "saturate", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    value = images.amax(1, keepdim=True)
    spread = value - images.amin(1, keepdim=True)
    saturation = spread / value.masked_fill(value == 0, 1.0)
    wanted = (saturation * factor + shift).clamp_(0.0, 1.0)
    is_grey = spread == 0
    coloured = value - (value - images) * (wanted / saturation.masked_fill(is_grey, 1.0))
    reddened = (value * (1 - wanted)).expand_as(images).clone()
    reddened[:, :1] = value
    return reddened.where(is_grey, coloured)
