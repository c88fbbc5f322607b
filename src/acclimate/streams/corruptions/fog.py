"""Fog: a plasma fractal laid over the image."""

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws

_FIRST_AMPLITUDE = 100.0


def fog(images: Tensor, draws: Draws, density: float, decay: float) -> Tensor:
    r"""Fog of uneven density: :math:`(x + d\,P)\,m / (m + d)`, P a plasma fractal in [0, 1], m = max x.

    Arguments:
        density: d, above 0.
        decay: how much smaller the random part gets from one octave of the fractal to the next, above 1.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "fog", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    height, width = images.shape[-2:]
    side = 1 << (max(height, width) - 1).bit_length()
    plasma = plasma_fractal(draws, side, decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + plasma * density) * (brightest / (brightest + density))


def plasma_fractal(draws: Draws, side: int, decay: float) -> Tensor:
    r"""Height maps on a torus by the diamond-square algorithm; float32 [N, side, side], each from 0 to 1.

    Each new point is the mean of its four neighbours at the current step plus noise uniform in
    :math:`\pm a_k^2`, where :math:`a_0 = 100` and :math:`a_{k+1} = a_k / \text{decay}`: first the centres of the
    squares, then the middles of their edges, then the step is halved.

    Source: Fournier, Fussell and Carpenter, *Computer rendering of stochastic models*, CACM 1982.

    Arguments:
        draws: random numbers of the N samples.
        side: a power of two.
        decay: above 1; small values keep fine structure.
    """
    terrain = torch.zeros(len(draws.keys), side, side, device=draws.keys.device)
    step, amplitude, stream = side, _FIRST_AMPLITUDE, 0
    while step >= 2:
        half, cells, reach = step // 2, side // step, amplitude * amplitude
        centre_noise, across_noise, down_noise = (
            draws.uniform(stream + k, cells, cells, low=-reach, high=reach) for k in range(3)
        )
        corners = terrain[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        centres = (pairs + pairs.roll(-1, 2)) / 4 + centre_noise
        terrain[:, half::step, half::step] = centres
        across = centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)
        down = centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)
        terrain[:, ::step, half::step] = across / 4 + across_noise
        terrain[:, half::step, ::step] = down / 4 + down_noise
        step, amplitude, stream = half, amplitude / decay, stream + 3
    terrain -= terrain.amin((1, 2), keepdim=True)
    return terrain / terrain.amax((1, 2), keepdim=True)
