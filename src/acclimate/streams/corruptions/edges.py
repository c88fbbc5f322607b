"""Classic operations on batches of grey planes [N, H, W]: Canny edges, distances, equalisation."""

import torch
from torch import Tensor

from acclimate.streams.corruptions.separable import mirrored

_TAN_22_5 = 0.41421356237


def padded_by_reflection(planes: Tensor) -> Tensor:
    """One more pixel on all sides, mirrored about the centre of the edge pixels."""
    rows, columns = (
        mirrored(torch.arange(-1, size + 1, device=planes.device), size, repeat_edge=False)
        for size in planes.shape[-2:]
    )
    return planes.index_select(-2, rows).index_select(-1, columns)


def shifted(planes: Tensor, down: int, right: int, fill: float) -> Tensor:
    """The plane whose value at (r, c) is the old one at (r + down, c + right), `fill` from outside."""
    height, width = planes.shape[-2:]
    result = torch.full_like(planes, fill)
    to_rows, from_rows = _overlap(height, down)
    to_columns, from_columns = _overlap(width, right)
    result[:, to_rows, to_columns] = planes[:, from_rows, from_columns]
    return result


def _overlap(size: int, step: int) -> tuple[slice, slice]:
    length = max(size - abs(step), 0)
    return slice(max(-step, 0), max(-step, 0) + length), slice(max(step, 0), max(step, 0) + length)


def canny(levels: Tensor, low: int, high: int) -> Tensor:
    """Canny's edges of int32 planes 0..255, as bool: Sobel gradients, thinning, hysteresis.

    Magnitudes are :math:`|g_x| + |g_y|`. A pixel is a candidate above `low` where it is the largest along its
    gradient (rounded to 45 degrees; of two equal neighbours the first counts); candidates connected to one
    above `high` are edges.

    Source: Canny, *A computational approach to edge detection*, PAMI 1986.
    """
    replicated = torch.nn.functional.pad(levels[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0].short()
    top, middle, bottom = replicated[:, :-2], replicated[:, 1:-1], replicated[:, 2:]
    rows = top + middle * 2 + bottom
    across = rows[:, :, 2:] - rows[:, :, :-2]
    difference = bottom - top
    down = difference[:, :, :-2] + difference[:, :, 1:-1] * 2 + difference[:, :, 2:]
    magnitude = across.abs() + down.abs()

    def largest(step_down: int, step_right: int, *, first_counts: bool) -> Tensor:
        before = shifted(magnitude, -step_down, -step_right, 0)
        after = shifted(magnitude, step_down, step_right, 0)
        return (magnitude > before) & ((magnitude >= after) if first_counts else (magnitude > after))

    is_flat = down.abs() < across.abs() * _TAN_22_5
    is_steep = down.abs() > across.abs() * (2 + _TAN_22_5)
    falls = (across ^ down) >= 0
    is_crest = (
        (is_flat & largest(0, 1, first_counts=True))
        | (is_steep & largest(1, 0, first_counts=True))
        | (~(is_flat | is_steep) & falls & largest(1, 1, first_counts=False))
        | (~(is_flat | is_steep | falls) & largest(1, -1, first_counts=False))
    )
    candidate = is_crest & (magnitude > low)
    return _connected(candidate & (magnitude > high), candidate)


def _connected(seeds: Tensor, region: Tensor) -> Tensor:
    """The pixels of `region` joined to `seeds` through it, diagonals included."""
    grown = seeds
    while True:
        wide = grown | shifted(grown, 0, 1, False) | shifted(grown, 0, -1, False)
        spread = (wide | shifted(wide, 1, 0, False) | shifted(wide, -1, 0, False)) & region
        if torch.equal(spread, grown):
            return grown
        grown = spread


def distance_to(marked: Tensor, farthest: int) -> Tensor:
    r"""Euclidean distance to the nearest marked pixel, at most `farthest` (below 128); float32.

    Squared distances are minimised along the columns, then along the rows:
    :math:`\min_r \min_c\,(r^2 + c^2)`, each over :math:`\pm` farthest.
    """
    limit = farthest * farthest
    row = torch.arange(marked.shape[1], dtype=torch.int16, device=marked.device)[:, None]
    above = row.expand_as(marked).masked_fill(~marked, -farthest).cummax(1).values
    below = (-row).expand_as(marked).masked_fill(~marked, -len(row) - farthest).flip(1).cummax(1).values.flip(1)
    square = torch.minimum(row - above, -below - row).clamp_(max=farthest).square_()
    nearest = square.clone()
    for step in range(1, min(farthest, square.shape[2])):
        if step * step >= int(nearest.max()):
            break
        beyond = square + step * step
        for target, source in (
            (nearest[:, :, step:], beyond[:, :, :-step]),
            (nearest[:, :, :-step], beyond[:, :, step:]),
        ):
            torch.minimum(target, source, out=target)
    return nearest.clamp_(max=limit).float().sqrt_()


def equalise(levels: Tensor) -> Tensor:
    r"""Histogram equalisation of int32 planes 0..255: :math:`255\,(F(v) - F_0) / (1 - F_0)`, rounded.

    F is the share of pixels up to a level, F_0 that of the darkest level present.
    """
    flat = levels.flatten(1).long()
    count, total = flat.shape
    place = flat + 256 * torch.arange(count, device=levels.device)[:, None]
    histogram = torch.zeros(256 * count, dtype=torch.int64, device=levels.device)
    histogram.scatter_add_(0, place.flatten(), torch.ones_like(place).flatten())
    up_to = histogram.view(count, 256).cumsum(1)
    darkest = up_to.gather(1, flat.amin(1, keepdim=True))
    stretched = ((up_to - darkest).double() * 255 / (total - darkest).clamp_(min=1)).add_(0.5).floor_()
    same = torch.arange(256, device=levels.device).expand_as(up_to)
    return torch.where(darkest == total, same, stretched.long()).gather(1, flat).int().view_as(levels)
