"""Poisson counts by exact inversion of tabulated distribution functions."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws

_LEVELS = 256


@lru_cache(maxsize=32)
def _stacked_distributions(top: float, device: torch.device) -> tuple[Tensor, int]:
    """The distribution functions of rates 0, 1, .. 255 times top / 255 as one ascending vector.

    Row r is shifted up by r, so one search of the whole vector for r + u inverts the r-th function.
    Cut above `top` + 7 standard deviations + 12 counts, where less than 1e-11 is left.
    """
    columns = int(top + 7 * math.sqrt(top) + 12)
    rate = torch.arange(_LEVELS, dtype=torch.float64, device="cpu")[:, None] * (top / (_LEVELS - 1))
    count = torch.arange(columns, dtype=torch.float64, device="cpu")
    mass = torch.exp(torch.special.xlogy(count, rate) - rate - torch.lgamma(count + 1))
    below = mass.cumsum(1).clamp_(max=1.0)
    below[:, -1] = 1.0
    row = torch.arange(_LEVELS, dtype=torch.float64, device="cpu")[:, None]
    return (below + row).flatten().to(device), columns


def _invert(level: Tensor, top: float, draws: Draws, stream: int) -> Tensor:
    """Poisson counts (int64) of rates level * top / 255, level int64 in 0..255."""
    table, columns = _stacked_distributions(top, level.device)
    word = draws.words(stream, *level.shape[1:]).double().add_(2.0**31 + 0.5).mul_(2.0**-32)
    return torch.searchsorted(table, word.add_(level), right=True).sub_(level * columns)


def poisson(fraction: Tensor, top: float, draws: Draws) -> Tensor:
    r"""Counts :math:`k \sim \mathrm{Poisson}(\text{top} \cdot \text{fraction})`, float32 shaped as `fraction`.

    A sum of two exact draws, using that Poisson variables add: one for the leading 8 bits of the rate, one
    for the next 8 (nothing to draw, and skipped, for 8-bit images). Rates are thus exact to top / 130560.

    Arguments:
        fraction: float tensor [N, ...] in [0, 1].
        top: rate at fraction 1, above 0.
        draws: random numbers of the N samples.
    """
    fine = (fraction * (255 * 256)).round().long()
    level, rest = fine >> 8, fine & 255
    counts = _invert(level, top, draws, stream=0)
    if rest.any():
        counts = counts + _invert(rest, top / 256, draws, stream=1)
    return counts.float()
