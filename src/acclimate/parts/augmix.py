"""AugMix: copies of images, each a mixture of short chains of mild operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.config import between, whole
from acclimate.parts.crop import sampled

__all__ = ["OPERATIONS", "AugMix"]

OPERATIONS = (
    "autocontrast",
    "equalize",
    "posterize",
    "solarize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
_MOVES = OPERATIONS.index("rotate")  # this and all after it move pixels


@dataclass(frozen=True, kw_only=True)
class AugMix:
    """One mixture for each image of `[N, C, H, W]` in [0, 1], again in [0, 1].

    `y = m x + (1 - m) sum_i w_i chain_i(x)` with w ~ Dirichlet(1, ..., 1) and m ~ Beta(1, 1); a chain is one to
    `depth` operations in a row, each drawn anew from `OPERATIONS` with a strength uniform in [0.1, severity] of ten:
    at ten 30 degrees, a shear of 0.3, a third of the image, 4 bits fewer than 4, or every pixel inverted. Images are
    taken for 8 bits deep where that matters, and what moves in from outside is black.

    Arguments (published): `chains` >= 1 (3); `depth` >= 1 (3); `severity` in [0.1, 10] (1).
    """

    chains: int = 3
    depth: int = 3
    severity: float = 1.0

    def __post_init__(self) -> None:
        whole(1, chains=self.chains, depth=self.depth)
        between(0.1, 10, severity=self.severity)

    @torch.no_grad()
    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if x.ndim != 4:
            raise ValueError(f"views are made of images [N, C, H, W], found shape {list(x.shape)}.")
        kind, count = x.dtype, len(x) * self.chains
        x = (x.float() if kind in (torch.float16, torch.bfloat16) else x).clamp(0, 1)
        shares = -torch.rand(len(x), self.chains, generator=generator).neg_().log1p_() + 1e-12
        shares = shares / shares.sum(1, keepdim=True)  # exponentials over their sum: Dirichlet(1, ..., 1)
        blend = torch.rand(len(x), generator=generator)
        lengths = torch.randint(1, self.depth + 1, (count,), generator=generator)
        places = self.depth, count
        chosen = torch.randint(len(OPERATIONS), places, generator=generator)
        chosen.masked_fill_(lengths <= torch.arange(self.depth).view(-1, 1), -1)
        strength = (0.1 + (self.severity - 0.1) * torch.rand(places, generator=generator)) / 10
        sign = 1.0 - 2 * torch.randint(2, places, generator=generator)
        chains = x.repeat_interleave(self.chains, 0)
        _operate(chains, chosen, strength, sign)
        mixed = torch.zeros_like(x)
        parts, shares = chains.unflatten(0, (len(x), self.chains)).unbind(1), shares.to(x).view(*shares.shape, 1, 1, 1)
        for part, share in zip(parts, shares.unbind(1), strict=True):
            mixed.addcmul_(part, share)
        return torch.lerp(mixed, x, blend.to(x).view(-1, 1, 1, 1)).clamp_(0, 1).to(kind)


def _operate(x: Tensor, chosen: Tensor, strength: Tensor, sign: Tensor) -> None:
    """Each image by its own operations `[depth, N]`, one after the other, in place; -1 is none.

    All but `x` are on the CPU. Images of one operation are put next to each other.
    """
    order = chosen.argsort(1)
    chosen, strength, sign = (drawn.gather(1, order) for drawn in (chosen, strength, sign))
    counts = (chosen.unsqueeze(2) == torch.arange(-1, len(OPERATIONS))).sum(1).tolist()
    maps = _maps(chosen - _MOVES, strength, sign, *x.shape[-2:]).to(x)
    order, strength = order.to(x.device), strength.to(x).view(*strength.shape, 1, 1, 1)
    for number, (idle, *of_kind) in enumerate(counts):
        place = order[number, idle:]
        images = x.index_select(0, place)
        sizes = [*of_kind[:_MOVES], sum(of_kind[_MOVES:])]
        groups, amounts = images.split(sizes), strength[number, idle:].split(sizes)
        for kind, group, amount in zip(OPERATIONS[:_MOVES], groups, amounts, strict=False):
            if len(group):
                _recolour(group, kind, amount)
        if moved := sizes[-1]:
            groups[-1].copy_(sampled(groups[-1], maps[number, -moved:], "zeros"))
        x.index_copy_(0, place, images)


def _recolour(x: Tensor, kind: str, strength: Tensor) -> None:
    """In place."""
    if kind == "autocontrast":
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        flat = high <= low
        x.sub_(low.masked_fill(flat, 0)).div_((high - low).masked_fill_(flat, 1))
        return
    levels = (x * 255).round_()
    if kind == "equalize":
        x.copy_(_equalize(levels))
    elif kind == "posterize":
        step = 2 ** (4 + (strength * 4).floor())
        x.copy_(levels.div_(step).floor_().mul_(step).div_(255))
    else:
        x.copy_(torch.where(levels < 256 - (strength * 256).floor(), x, 1 - x))


def _equalize(levels: Tensor) -> Tensor:
    """Histograms of each channel flattened, in whole numbers; those with too few pixels for it stay."""
    flat = levels.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=flat.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    brightest = counts.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp_max(255)
    return torch.where(step > 0, table.gather(2, flat), flat).view_as(levels).to(levels.dtype) / 255


def _maps(kind: Tensor, strength: Tensor, sign: Tensor, height: int, width: int) -> Tensor:
    """From each pixel of the result to where it is taken from, in pixels: `[..., 2, 3]`. Shears keep the corner."""

    def only(number: int, amount: Tensor) -> Tensor:
        return torch.where(kind == number, amount * sign, 0.0)

    angle = only(0, (strength * 30).floor()).deg2rad_()
    cosine, sine, across, down = angle.cos(), angle.sin(), width / 2, height / 2
    by_row, by_column = only(1, strength * 0.3) - sine, only(2, strength * 0.3) + sine
    right = only(3, (strength * width / 3).floor()) + across - cosine * across + sine * down
    lower = only(4, (strength * height / 3).floor()) + down - sine * across - cosine * down
    return torch.stack([cosine, by_row, right, by_column, cosine, lower], -1).unflatten(-1, (2, 3))
