"""Zoom blur: a camera moving towards the scene; and the magnification it shares with snow."""

import math
from collections import Counter

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws

Span = tuple[int, int]


def zoom_blur(images: Tensor, _: Draws, step: float, count: int) -> Tensor:
    r"""The mean of the image and its magnifications by :math:`1 + k\,s,\ k = 0 .. n - 1`.

    On small images many factors stretch alike; each kind is computed once.

    Arguments:
        step: s, above 0.
        count: n, at least 1.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "zoom_blur", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    # Rows and columns first, samples last: picking a row or a column then copies whole runs of memory.
    planes = images.permute(2, 3, 0, 1).contiguous()
    height, width = planes.shape[:2]
    # The step as floats have it next to 1: rounded sizes hang on it where a factor ends in a half.
    factors = [1 + ((1 + step) - 1) * k for k in range(count)]
    # Buffers used again for each kind: fetching fresh memory from the system costs as much as the arithmetic.
    tall, wide, spare = (torch.empty_like(planes) for _ in range(3))
    sums = {1: planes.clone()}
    for (rows, columns), times in Counter((_span(height, f), _span(width, f)) for f in factors).items():
        stretched = _stretch(_stretch(planes, rows, 0, tall, spare), columns, 1, wide, spare)
        if times in sums:
            sums[times] += stretched
        else:
            sums[times] = stretched.clone()
    total = torch.zeros_like(planes)
    for times, part in sums.items():
        total += part.mul_(times)
    return total.div_(count + 1).permute(2, 3, 0, 1)


def magnify(images: Tensor, factor: float) -> Tensor:
    r"""Stretch the middle of [N, C, H, W] over the whole, linearly interpolated, by `factor` >= 1.

    The middle :math:`\lceil H / z \rceil` rows are laid end to end over round(z times that) rows, of which the
    middle H are kept; columns likewise.
    """
    rows, columns = (_span(size, factor) for size in images.shape[-2:])
    return _stretch(_stretch(images, rows, 2), columns, 3)


def _span(size: int, factor: float) -> Span:
    """How many samples are cut out of a line, and over how many they are stretched."""
    kept = math.ceil(size / factor)
    return kept, round(kept * factor)


def _stretch(
    planes: Tensor, span: Span, axis: int, buffer: Tensor | None = None, spare: Tensor | None = None
) -> Tensor:
    """One axis of four; the result lies in `buffer`, if one is given and anything is stretched at all."""
    size, (kept, stretched) = planes.shape[axis], span
    if kept == stretched:
        return planes
    start, trim = (size - kept) // 2, (stretched - size) // 2
    place = (torch.arange(size, dtype=torch.float64, device="cpu") + trim) * ((kept - 1) / (stretched - 1))
    left = place.floor().clamp(max=kept - 2)
    share = (place - left).float().to(planes.device).view([-1 if k == axis else 1 for k in range(4)])
    index = (left.long() + start).to(planes.device)
    low = torch.index_select(planes, axis, index, out=spare)
    high = torch.index_select(planes, axis, index + 1, out=buffer)
    return high.sub_(low).mul_(share).add_(low)
