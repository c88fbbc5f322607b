"""Pixel noise: gaussian, shot, impulse, speckle.

Source of the definitions and constants here and in the sibling files: Hendrycks and Dietterich, *Benchmarking
neural network robustness to common corruptions and perturbations*, ICLR 2019. Every corruption takes float32
images [N, 3, H, W] in [0, 1], the samples' random numbers and its published parameters; the caller clips.
"""

from torch import Tensor

from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.poisson import poisson


def gaussian_noise(images: Tensor, draws: Draws, deviation: float) -> Tensor:
    r"""Sensor noise in low light: :math:`x + \sigma z`, z standard normal for each pixel and channel.

    Arguments:
        deviation: sigma, above 0, in units of the full range.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "gaussian_noise", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    return draws.normal(0, *images.shape[1:]).mul_(deviation).add_(images)


def speckle_noise(images: Tensor, draws: Draws, deviation: float) -> Tensor:
    r"""Multiplicative noise: :math:`x + x \sigma z`, z standard normal for each pixel and channel.

    Arguments:
        deviation: sigma, above 0, relative to the pixel.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "speckle_noise", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    return draws.normal(0, *images.shape[1:]).mul_(deviation).mul_(images).add_(images)


def shot_noise(images: Tensor, draws: Draws, photons: float) -> Tensor:
    r"""Counting noise of light: :math:`\mathrm{Poisson}(\lambda x) / \lambda` for each pixel and channel.

    Arguments:
        photons: lambda, above 0, the mean count of a white pixel.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "shot_noise", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    return poisson(images, photons, draws).div_(photons)


def impulse_noise(images: Tensor, draws: Draws, amount: float) -> Tensor:
    """Salt and pepper: each pixel of each channel becomes 0 or 1, evenly, with probability `amount`.

    Arguments:
        amount: probability in (0, 1).

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "impulse_noise", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    uniform = draws.uniform(0, *images.shape[1:])
    pepper = images.masked_fill(uniform < amount, 0.0)
    return pepper.masked_fill_(uniform < amount / 2, 1.0)
