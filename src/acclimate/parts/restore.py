"""Stochastic restoration: put a random share of weights back to where they came from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["restore", "scattered"]


@torch.no_grad()
def restore(targets: Sequence[Tensor], sources: Sequence[Tensor], rate: float, generator: torch.Generator) -> None:
    """Each element of each target takes its source's value with probability `rate`, by itself; in place.

    Only about as many numbers are drawn as elements are restored. Targets may lie in memory in any layout.
    """
    sizes = torch.tensor([target.numel() for target in targets])
    chosen = scattered(int(sizes.sum()), rate, generator)
    ends = sizes.cumsum(0)
    counts = torch.searchsorted(chosen, ends).diff(prepend=ends.new_zeros(1))
    places = (chosen - (ends - sizes).repeat_interleave(counts)).to(targets[0].device)
    for target, source, place in zip(targets, sources, places.split(counts.tolist()), strict=True):
        if not len(place):
            continue
        place = place.to(target.device)
        if target.is_contiguous():
            target.view(-1)[place] = source.take(place)
        else:
            target[torch.unravel_index(place, target.shape)] = source.take(place)


def scattered(count: int, rate: float, generator: torch.Generator) -> Tensor:
    """Which of `count` things are drawn, each with probability `rate` independently: their indices in order.

    Gaps between independent draws are geometric, `P(gap = k) = rate (1 - rate)^k`, so drawing the gaps draws the
    set: `floor(log(1 - u) / log(1 - rate))` for uniform u. In float64, on the CPU.
    """
    last, parts = -1, [torch.zeros(0, dtype=torch.float64)]
    scale = torch.tensor(-rate, dtype=torch.float64).log1p()
    while rate and last < count - 1:
        expected = (count - 1 - last) * rate
        drawn = torch.rand(int(expected + 6 * math.sqrt(expected)) + 8, dtype=torch.float64, generator=generator)
        places = ((-drawn).log1p_() / scale).floor_().add_(1).cumsum_(0).add_(last)
        parts.append(places[places < count])
        last = min(float(places[-1]), float(count))
    return torch.cat(parts).long()
