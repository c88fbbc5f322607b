"""Night: little light, bluish and noisy, and a few warm lamps."""

import torch
from torch import Tensor

from acclimate.streams.corruptions.colour import grey
from acclimate.streams.corruptions.draws import Draws

_TINT = (0.72, 0.88, 1.2)
_FADED = 0.5
_WARM = (1.0, 0.78, 0.45)
_LAMPS = 4
_RADII = (0.01, 0.04)


def night(images: Tensor, draws: Draws, exposure: float, quarters: int, shot: float, read: float) -> Tensor:
    r"""Darkness: :math:`z + \sqrt{s z + r^2}\,n` with :math:`z = y + L (1 - y)`, n standard normal for each value.

    The scene is :math:`y = e\,\text{tint} \cdot (x^\gamma + g) / 2` with :math:`\gamma` in quarters and g the grey
    value of :math:`x^\gamma`: eyes and sensors see little colour at night, and what there is turns blue. The light L
    comes from four lamps at random places, none in the lowest quarter: :math:`L = \max_k b_k / (1 + d^2 / r_k^2)^2`
    at the distance d, warm, with radii of 1 to 4 hundredths of the short side and brightness from 0.4 to 1.

    No published generator: made for streams of road scenes; the shape of the noise, a part that grows with the
    light and a part that does not, is that of sensors (Foi et al., *Practical Poissonian-Gaussian noise modeling*,
    IEEE TIP 2008).

    Arguments:
        exposure: e in (0, 1].
        quarters: four times the exponent, at least 1.
        shot: s >= 0, the variance of the noise for each unit of light.
        read: r >= 0, the standard deviation of the noise in the dark.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "night", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    tint, warm = (torch.tensor(colour, device=images.device)[:, None, None] for colour in (_TINT, _WARM))
    dark = _power(images, quarters)
    dark = (dark + (grey(dark) - dark) * _FADED) * tint * exposure
    scene = dark + (1 - dark) * (_lamps(draws, images) * warm)
    scene = scene.clamp_(0.0, 1.0)
    return scene + draws.normal(0, *images.shape[1:]).mul_((scene * shot + read * read).sqrt_())


def _power(images: Tensor, quarters: int) -> Tensor:
    """The images to the power `quarters / 4`; by square roots, which every processor rounds alike."""
    root = images.sqrt().sqrt_()
    result = root.clone()
    for _ in range(quarters - 1):
        result *= root
    return result


def _lamps(draws: Draws, images: Tensor) -> Tensor:
    """How much light of lamps reaches each pixel: [N, 1, H, W] in [0, 1]."""
    height, width = images.shape[-2:]
    row = draws.uniform(1, _LAMPS, low=0.0, high=0.75 * height)[:, :, None, None]
    column = draws.uniform(2, _LAMPS, low=0.0, high=float(width))[:, :, None, None]
    low, high = (share * min(height, width) for share in _RADII)
    radius = draws.uniform(3, _LAMPS, low=low, high=high)[:, :, None, None]
    brightness = draws.uniform(4, _LAMPS, low=0.4, high=1.0)[:, :, None, None]
    down = torch.arange(height, device=images.device)[:, None] - row
    across = torch.arange(width, device=images.device) - column
    fall = 1 + (down * down + across * across) / (radius * radius)
    return (brightness / (fall * fall)).amax(1, keepdim=True)
