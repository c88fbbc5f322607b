"""Likeness of images pixel by pixel: signal to noise, and structure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["psnr", "ssim"]

_RANGE = 2.0
_WINDOW, _DEVIATION = 11, 1.5
_STEADY = ((0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2)


def psnr(images: Tensor, reference: Tensor, *, each: bool = False) -> Tensor:
    """Peak signal to noise in dB, `10 log10(4 / mean (x - y)^2)` for pixels held to [-1, 1]; float64.

    Arguments: both `[N, C, H, W]`; `each`, of every image `[N]` rather than of the mean square over all of them.

    Infinity where there is no difference. Raises ValueError for shapes that differ.

    >>> round(float(psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.2))), 2)
    20.0
    """
    x, y = _pair(images, reference)
    wrong = (x - y).square().flatten(1).mean(1)
    return 10 * (_RANGE**2 / (wrong if each else wrong.mean())).log10()


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity of each image, `[N]`, at most 1; pixels held to [-1, 1], float64.

    `mean of (2 m_x m_y + a) (2 s_xy + b) / ((m_x^2 + m_y^2 + a) (s_x^2 + s_y^2 + b))` over channels and all places
    of a window of 11 x 11, Gaussian with a deviation of 1.5 pixels, in which means m and (co)variances s are taken;
    `a = (0.01 L)^2`, `b = (0.03 L)^2`, range L = 2.

    Arguments: both `[N, C, H, W]`, of 11 pixels or more a side.

    Raises ValueError for shapes that differ or smaller images.

    Source: Wang, Bovik, Sheikh, Simoncelli: Image Quality Assessment, IEEE Transactions on Image Processing 13, 2004.

    >>> x = torch.linspace(-1, 1, 144).view(1, 1, 12, 12)
    >>> round(float(ssim(x, x)), 6), float(ssim(x, -x)) < 0.9
    (1.0, True)
    """
    x, y = _pair(images, reference)
    if min(x.shape[-2:]) < _WINDOW:
        raise ValueError(
            f"found images of {list(x.shape[-2:])} pixels; expected {_WINDOW} or more a side, for the window of "
            "structural similarity. Enlarge them, or use psnr."
        )
    square = torch.stack([x, y, x * x, y * y, x * y]).flatten(0, 2)[:, None]
    near = F.conv2d(F.conv2d(square, _weights()[None, None, :, None]), _weights()[None, None, None, :])
    mx, my, xx, yy, xy = near.view(5, *x.shape[:2], *near.shape[-2:])
    a, b = _STEADY
    like = (2 * mx * my + a) * (2 * (xy - mx * my) + b)
    most = (mx**2 + my**2 + a) * (xx - mx**2 + yy - my**2 + b)
    return (like / most).flatten(1).mean(1)


def _weights() -> Tensor:
    place = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    weights = (-0.5 * (place / _DEVIATION) ** 2).exp()
    return weights / weights.sum()


def _pair(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if images.shape != reference.shape or images.ndim != 4:
        raise ValueError(
            f"found images {list(images.shape)} and a reference {list(reference.shape)}; expected two of one shape "
            "[N, C, H, W]."
        )
    return images.double().clamp(-1, 1), reference.double().clamp(-1, 1)
