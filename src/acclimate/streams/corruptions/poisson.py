"""Poisson counts by exact inversion of tabulated distribution functions."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws

_LEVELS = 256
_CELLS = 4096
_WORD_TO_CELL = 32 - 12


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


@lru_cache(maxsize=32)
def _shortcut(top: float, device: torch.device) -> Tensor:
    """Int16 [256 * 4096]: the count for a level and the leading 12 bits of u, or -1 where they leave it open."""
    table, columns = _stacked_distributions(top, device)
    row = torch.arange(_LEVELS, dtype=torch.float64, device=device)[:, None]
    edge = torch.arange(_CELLS + 1, dtype=torch.float64, device=device) / _CELLS
    first = torch.searchsorted(table, row + edge[:-1], right=True)
    # Up to, not including, the right end: a distribution function stepping just there does not matter.
    last = torch.searchsorted(table, row + edge[1:], right=False)
    count = first - row.long() * columns
    return torch.where(first == last, count, -1).to(torch.int16).flatten()


def _invert(level: Tensor, top: float, draws: Draws, stream: int) -> Tensor:
    """Poisson counts (int16) of rates level * top / 255, level int32 in 0..255."""
    word = draws.words(stream, *level.shape[1:])
    cell = (word >> _WORD_TO_CELL).add_(_CELLS // 2).add_(level * _CELLS)
    count = _shortcut(top, level.device).index_select(0, cell.flatten())
    is_open = (count < 0).nonzero()[:, 0]
    table, columns = _stacked_distributions(top, level.device)
    row = level.flatten()[is_open].long()
    uniform = word.flatten()[is_open].double().add_(2.0**31 + 0.5).mul_(2.0**-32)
    count[is_open] = torch.searchsorted(table, uniform.add_(row), right=True).sub_(row * columns).to(torch.int16)
    return count.view(level.shape)


def poisson(fraction: Tensor, top: float, draws: Draws) -> Tensor:
    r"""Counts :math:`k \sim \mathrm{Poisson}(\text{top} \cdot \text{fraction})`, float32 shaped as `fraction`.

    A sum of two exact draws, using that Poisson variables add: one for the leading 8 bits of the rate, one
    for the next 8 (nothing to draw, and skipped, for 8-bit images). Rates are thus exact to top / 130560.

    Arguments:
        fraction: float tensor [N, ...] in [0, 1].
        top: rate at fraction 1, above 0.
        draws: random numbers of the N samples.
    """
    fine = (fraction * (255 * 256)).round_().int()
    level, rest = fine >> 8, fine & 255
    counts = _invert(level, top, draws, stream=0)
    if rest.any():
        counts = counts + _invert(rest, top / 256, draws, stream=1)
    return counts.float()
