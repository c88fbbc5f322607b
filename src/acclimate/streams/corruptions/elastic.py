"""Elastic transform: a random affine map, then a smooth random displacement of every pixel."""

import torch
from torch import Tensor

from acclimate.streams.corruptions.blur import smooth
from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.lookup import look_up
from acclimate.streams.corruptions.separable import mirrored

_FARTHEST = 2.0**20


def elastic_transform(images: Tensor, draws: Draws, amplitude: float, sigma: float, jitter: float) -> Tensor:
    r"""Stretch and shrink small regions: :math:`y(p) = \mathrm{warp}(x)(p + a\,(G_\sigma * u)(p))`.

    The warp is the affine map that moves three corners of a centred square, a third of the short side s out,
    by uniform jitters within :math:`\pm j s`. The field u is uniform in [-1, 1] for each pixel and axis. All
    three lengths are fractions of the short side; as published, they do not all grow with severity.

    Arguments:
        amplitude: a / s, at least 0.
        sigma: standard deviation of the smoothing over s, at least 0.
        jitter: j, at least 0.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "elastic_transform", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    rows, columns = _affine_places(draws, height, width, jitter * side)
    warped = sample(images, rows, columns, repeat_edge=False)
    if amplitude == 0:
        return warped
    noise = draws.uniform(1, 2, height, width, low=-1.0, high=1.0)
    shift = smooth(noise, sigma * side, truncate=3.0, mirror=True) * (amplitude * side)
    row, column = _grid(height, width, images.device)
    return sample(warped, row + shift[:, 0], column + shift[:, 1], repeat_edge=True)


def _grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    row = torch.arange(height, dtype=torch.float32, device=device)[:, None]
    return row, torch.arange(width, dtype=torch.float32, device=device)


def _affine_places(draws: Draws, height: int, width: int, jitter: float) -> tuple[Tensor, Tensor]:
    """Where each pixel of the warped image comes from; rows and columns, float32 [N, H, W].

    With corners (r, c), (r - 2s, c), (r - 2s, c - 2s) moved by e0, e1, e2, the map has the columns
    (2s + e0 - e1) / 2s and (2s + e1 - e2) / 2s on the axes; its inverse is written out below.
    """
    third = min(height, width) // 3
    moved = draws.uniform(0, 3, 2, low=-jitter, high=jitter)
    along_row = (moved[:, 0] - moved[:, 1]) / (2 * third)
    along_column = (moved[:, 1] - moved[:, 2]) / (2 * third)
    down_row, down_column = 1 + along_row[:, 0], along_row[:, 1]
    right_row, right_column = along_column[:, 0], 1 + along_column[:, 1]
    area = down_row * right_column - right_row * down_column
    scale = torch.where(area == 0, 0.0, 1 / area)[:, None, None]
    row, column = _grid(height, width, moved.device)
    top, right = height // 2 - third, width // 2 + third
    from_row = row - (top + moved[:, 1, 0])[:, None, None]
    from_column = column - (right + moved[:, 1, 1])[:, None, None]
    a, b, c, d = (entry[:, None, None] for entry in (right_column, right_row, down_column, down_row))
    return top + (a * from_row - b * from_column) * scale, right + (d * from_column - c * from_row) * scale


def sample(images: Tensor, rows: Tensor, columns: Tensor, *, repeat_edge: bool) -> Tensor:
    """Bilinear values of images [N, C, H, W] at places [N, H', W'], mirrored outside (see `mirrored`)."""
    height, width = images.shape[-2:]
    # A nearly flat affine map leads anywhere; floats count single pixels only so far.
    rows, columns = (places.clamp(-_FARTHEST, _FARTHEST) for places in (rows, columns))
    top, left = rows.floor(), columns.floor()
    below, beside = (rows - top)[:, None], (columns - left)[:, None]
    upper, lower = (mirrored(top + k, height, repeat_edge=repeat_edge).int() * width for k in (0, 1))
    near, far = (mirrored(left + k, width, repeat_edge=repeat_edge).int() for k in (0, 1))

    def pick(place: Tensor) -> Tensor:
        return look_up(images, place.long())

    def blend(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
        return high.sub_(low).mul_(share).add_(low)

    above = blend(pick(upper + near), pick(upper + far), beside)
    beneath = blend(pick(lower + near), pick(lower + far), beside)
    return blend(above, beneath, below)
