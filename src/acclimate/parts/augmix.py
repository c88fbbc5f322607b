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
        blend = torch.rand(len(x), generator=generator).to(x)
        lengths = torch.randint(1, self.depth + 1, (count,), generator=generator)
        chains = x.repeat_interleave(self.chains, 0)
        for place in range(self.depth):
            chosen = torch.randint(len(OPERATIONS), (count,), generator=generator)
            strength = (0.1 + (self.severity - 0.1) * torch.rand(count, generator=generator)) / 10
            sign = 1 - 2 * torch.randint(2, (count,), generator=generator)
            _operate(chains, chosen.masked_fill(lengths <= place, -1), strength, sign)
        chains *= shares.to(x).view(-1, 1, 1, 1)
        mixed = chains.unflatten(0, (len(x), self.chains)).sum(1)
        return torch.lerp(mixed, x, blend.view(-1, 1, 1, 1)).clamp_(0, 1).to(kind)


def _operate(x: Tensor, chosen: Tensor, strength: Tensor, sign: Tensor) -> None:
    """Each image by its own operation, in place; -1 is none. All but `x` are on the CPU."""
    for number, kind in enumerate(OPERATIONS[:_MOVES]):
        rows = (chosen == number).nonzero().flatten()
        if len(rows):
            place = rows.to(x.device)
            x[place] = _recolour(x[place], kind, strength[rows].to(x).view(-1, 1, 1, 1))
    rows = (chosen >= _MOVES).nonzero().flatten()
    if len(rows):
        place = rows.to(x.device)
        maps = _maps(chosen[rows] - _MOVES, strength[rows], sign[rows], *x.shape[-2:])
        x[place] = sampled(x[place], maps.to(x), "zeros")


def _recolour(x: Tensor, kind: str, strength: Tensor) -> Tensor:
    if kind == "autocontrast":
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.where(high > low, (x - low) / (high - low).clamp_min(1e-12), x)
    levels = (x * 255).round()
    if kind == "posterize":
        step = 2 ** (4 + (strength * 4).floor())
        return (levels / step).floor() * step / 255
    if kind == "solarize":
        return torch.where(levels < 256 - (strength * 256).floor(), x, 1 - x)
    return _equalize(levels)


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
    """From each pixel of the result to where it is taken from, in pixels: `[N, 2, 3]`. Shears keep the corner."""
    maps = torch.eye(2, 3).repeat(len(kind), 1, 1)
    angle = (strength * 30).floor().mul_(sign).deg2rad_()
    cosine, sine, across, down = angle.cos(), angle.sin(), width / 2, height / 2
    from_left, from_top = across - cosine * across + sine * down, down - sine * across - cosine * down
    rotation = torch.stack([cosine, -sine, from_left, sine, cosine, from_top], 1).view(-1, 2, 3)
    maps = torch.where((kind == 0).view(-1, 1, 1), rotation, maps)
    for number, row, column, amount in (
        (1, 0, 1, strength * 0.3),
        (2, 1, 0, strength * 0.3),
        (3, 0, 2, (strength * width / 3).floor()),
        (4, 1, 2, (strength * height / 3).floor()),
    ):
        maps[:, row, column] += torch.where(kind == number, amount * sign, 0.0)
    return maps
