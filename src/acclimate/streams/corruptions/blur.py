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
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "gaussian_blur", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    return smooth(images, sigma)


def defocus_blur(images: Tensor, _: Draws, radius: float, edge: float) -> Tensor:
    r"""A lens out of focus: the mean over the disk :math:`dx^2 + dy^2 \le r^2`, its rim softened.

    The softening is a gaussian of 3x3 pixels (5x5 above r = 8). The disk is summed by rows: a row is a
    centred run of pixels, and the runs grow from each other, so the cost grows with r and not with its square.
    From r = 8 on the published kernel sums to a little more than 1, which brightens the image; see `_published_sum`.

    Arguments:
        radius: r in pixels, above 0.
        edge: standard deviation of the softening in pixels, above 0.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "defocus_blur", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    reach, rim = int(radius), 1 if radius <= 8 else 2
    height, width = images.shape[-2:]
    padded = _reflect(images, reach + rim)
    disk = _disk_sum(padded, radius, reach)
    weights = [math.exp(-0.5 * (step / edge) ** 2) for step in range(rim + 1)]
    total = (weights[0] + 2 * sum(weights[1:])) / math.sqrt(_published_sum(radius, weights))
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


def _runs(radius: float) -> dict[int, int]:
    """Half the length of each row of the disk, its centre left out."""
    reach = int(radius)
    return {step: math.isqrt(int(radius * radius) - step * step) for step in range(-reach, reach + 1)}


def _published_sum(radius: float, weights: list[float]) -> float:
    """The sum of the published kernel, softened on a grid of half-width max(8, r) that is mirrored at its border.

    The mirror leaves out the outermost line: what that loses to the outside is less than what its neighbours
    send back, so a disk that touches the border gains weight.
    """
    border, rim = max(8, int(radius)), len(weights) - 1
    sent = dict.fromkeys(range(-border, border + 1), 0.0)
    for place in sent:
        for step in range(-rim, rim + 1):
            source = place + step
            inside = 2 * border - source if source > border else -2 * border - source if source < -border else source
            sent[inside] += weights[abs(step)] / (weights[0] + 2 * sum(weights[1:]))
    rows = {step: sum(sent[place] for place in range(-half, half + 1)) for step, half in _runs(radius).items()}
    return sum(sent[step] * row for step, row in rows.items()) / sum(2 * half + 1 for half in _runs(radius).values())


def _disk_sum(padded: Tensor, radius: float, reach: int) -> Tensor:
    """Mean over the disk; [N, C, H + 2 reach, W + 2 reach] -> [N, C, H, W]."""
    height, width = (size - 2 * reach for size in padded.shape[-2:])
    halves = _runs(radius)
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
