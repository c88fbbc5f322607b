"""Motion blur along a line in a random direction for each sample."""

import math

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.lookup import look_up

_NEGLIGIBLE = 1e-6


def motion_blur(images: Tensor, draws: Draws, radius: float, sigma: float) -> Tensor:
    """A moving camera: blur along one line per image, its angle uniform in -45..45 degrees.

    Arguments:
        radius: half the published length of the kernel in pixels, at least 1.
        sigma: standard deviation of the kernel in pixels, above 0.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "motion_blur", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    angle = draws.uniform(0, low=-45.0, high=45.0)
    return blur_along(images, angle, radius, sigma)


def blur_along(images: Tensor, angle: Tensor, radius: float, sigma: float) -> Tensor:
    r"""One-sided gaussian blur along a line.

    .. math:: y(p) = \sum_{i=0}^{2r} k_i\, x(p + o_i),\quad k_i \propto e^{-i^2 / 2\sigma^2},\quad
              o_i = \lceil i\,(\cos\theta, \sin\theta) - \tfrac12 \rceil

    Edge pixels go on outside. Weights below 1e-6 are left out.

    Arguments:
        images: float [N, C, H, W].
        angle: float [N], theta in degrees.
        radius: r in pixels.
        sigma: in pixels.
    """
    height, width = images.shape[-2:]
    kernel = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(2 * math.ceil(radius) + 1)]
    total = sum(kernel)
    direction = torch.deg2rad(angle.double())
    down, right = direction.sin()[:, None], direction.cos()[:, None]
    row = torch.arange(height, device=images.device)
    column = torch.arange(width, device=images.device)
    blurred = images * (kernel[0] / total)
    for step, weight in enumerate(kernel[1:], start=1):
        if weight / total < _NEGLIGIBLE:
            break
        source_row = (row + (down * step - 0.5).ceil_().long()).clamp_(0, height - 1)
        source_column = (column + (right * step - 0.5).ceil_().long()).clamp_(0, width - 1)
        place = source_row[:, :, None] * width + source_column[:, None, :]
        blurred += look_up(images, place).mul_(weight / total)
    return blurred
