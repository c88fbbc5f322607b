"""Blurs with the same kernel for every sample: gaussian and defocus."""

import math

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.separable import gaussian_matrix, mirrored, separable


def smooth(images: Tensor, sigma: float, *, truncate: float = 4.0, mirror: bool = False) -> Tensor:
    """Gaussian smoothing [..., H, W] -> [..., H, W], `sigma` in pixels; borders as in `gaussian_matrix`."""
    height, width = images.shape[-2:]
    rows, columns = (
        gaussian_matrix(size, sigma, truncate=truncate, mirror=mirror, device=images.device) for size in (height, width)
    )
    return separable(images, rows, columns)


def gaussian_blur(images: Tensor, _: Draws, sigma: float) -> Tensor:
    """Convolution with a normal density, cut at 4 sigma, edge pixels going on outside.

    Arguments:
        sigma: standard deviation in pixels, above 0.

    Example:
        >>> corrupt(images, "gaussian_blur", severity=3)
    """
    return smooth(images, sigma)


def defocus_blur(images: Tensor, _: Draws, radius: float, edge: float) -> Tensor:
    r"""A lens out of focus: the mean over the disk :math:`dx^2 + dy^2 \le r^2`, its rim softened.

    The softening is a gaussian of 3x3 pixels (5x5 above r = 8). The disk is summed by rows: a row is a
    centred run of pixels, and the runs grow from each other, so the cost grows with r and not with its square.

    Arguments:
        radius: r in pixels, above 0.
        edge: standard deviation of the softening in pixels, above 0.

    Example:
        >>> corrupt(images, "defocus_blur", severity=3)
    """
    reach, rim = int(radius), 1 if radius <= 8 else 2
    height, width = images.shape[-2:]
    padded = _reflect(images, reach + rim)
    disk = _disk_sum(padded, radius, reach)
    weights = [math.exp(-0.5 * (step / edge) ** 2) for step in range(rim + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    for axis, size in ((2, height), (3, width)):
        softened = disk.narrow(axis, rim, size) * (weights[0] / total)
        for step in range(1, rim + 1):
            pair = disk.narrow(axis, rim - step, size) + disk.narrow(axis, rim + step, size)
            softened += pair * (weights[step] / total)
        disk = softened
    return disk


def _reflect(images: Tensor, margin: int) -> Tensor:
    """Pad by `margin` on all sides, mirrored about the centre of the edge pixels."""
    height, width = images.shape[-2:]
    rows, columns = (
        mirrored(torch.arange(-margin, size + margin, device=images.device), size, repeat_edge=False)
        for size in (height, width)
    )
    return images.index_select(2, rows).index_select(3, columns)


def _disk_sum(padded: Tensor, radius: float, reach: int) -> Tensor:
    """Mean over the disk; [N, C, H + 2 reach, W + 2 reach] -> [N, C, H, W]."""
    height, width = (size - 2 * reach for size in padded.shape[-2:])
    halves = {step: math.isqrt(int(radius * radius) - step * step) for step in range(-reach, reach + 1)}
    run = padded.narrow(3, reach, width).clone()
    total = torch.zeros_like(run[:, :, :height])
    for half in range(reach + 1):
        if half:
            run += padded.narrow(3, reach - half, width)
            run += padded.narrow(3, reach + half, width)
        for step, length in halves.items():
            if length == half:
                total += run.narrow(2, reach + step, height)
    return total / sum(2 * length + 1 for length in halves.values())
