"""Textures of frost, computed: stars and ferns of ice with side branches at sixty degrees."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.fog import plasma_fractal

SIDE = 512
_SIXTY_DEGREES = math.pi / 3


@dataclass(frozen=True, kw_only=True)
class Ice:
    """The look of one texture. Levels are 0..255, lengths pixels of the texture.

    Arguments:
        colour: mean red, green, blue.
        deviation: standard deviation of red, green, blue.
        crystals: how many crystals grow.
        arm: length of the longest of a crystal's six arms.
        spacing: distance between the side branches of an arm.
        grain: share of the variance that is fine grain, 0..1.
        clouding: share of the variance that is slow change of thickness, 0..1.
        bareness: how much darker gaps are than needles are bright; 0 is symmetric.
    """

    colour: tuple[float, float, float]
    deviation: tuple[float, float, float]
    crystals: int
    arm: float
    spacing: float
    grain: float
    clouding: float
    bareness: float


KINDS = (
    Ice(
        colour=(198, 203, 212), deviation=(20, 20, 19), crystals=200, arm=50, spacing=6,
        grain=0.25, clouding=0.2, bareness=0.5,
    ),
    Ice(
        colour=(204, 208, 217), deviation=(17, 17, 16), crystals=70, arm=100, spacing=6,
        grain=0.2, clouding=0.3, bareness=0.5,
    ),
    Ice(
        colour=(147, 162, 174), deviation=(27, 26, 25), crystals=500, arm=28, spacing=4,
        grain=0.35, clouding=0.12, bareness=0.1,
    ),
    Ice(
        colour=(121, 132, 142), deviation=(42, 41, 39), crystals=60, arm=120, spacing=7,
        grain=0.12, clouding=0.3, bareness=0.0,
    ),
    Ice(
        colour=(78, 147, 163), deviation=(26, 17, 15), crystals=30, arm=160, spacing=6,
        grain=0.2, clouding=0.5, bareness=-0.15,
    ),
)  # fmt: skip


@lru_cache(maxsize=8)
def frost_textures(device: torch.device) -> Tensor:
    """All textures, float32 [5, 3, 512, 512] in [0, 1] on 8-bit levels, each seamless at its borders."""
    return torch.stack([_texture(number, ice) for number, ice in enumerate(KINDS)]).to(device)


def _texture(number: int, ice: Ice) -> Tensor:
    draws = Draws.keyed(torch.tensor([number], device="cpu"), seed=0, label="frost-texture")
    parts = (
        (1 - ice.grain - ice.clouding, _crystals(draws, ice)),
        (ice.grain, _softened(draws.normal(200, SIDE, SIDE)[0])),
        (ice.clouding, plasma_fractal(draws, SIDE, 2.0)[0]),
    )
    thickness = _unit(sum((math.sqrt(share) * _unit(part) for share, part in parts), torch.zeros((), device="cpu")))
    shaped = _unit(-torch.expm1(-ice.bareness * thickness) / ice.bareness if ice.bareness else thickness)
    colour, deviation = (torch.tensor(levels, device="cpu")[:, None, None] for levels in (ice.colour, ice.deviation))
    return (colour + deviation * shaped).round_().clamp_(0, 255).div_(255).float()


def _unit(plane: Tensor) -> Tensor:
    return (plane - plane.mean()) / plane.std()


def _softened(plane: Tensor) -> Tensor:
    """A 3x3 binomial smoothing on the torus."""
    for axis in (0, 1):
        plane = plane * 2 + plane.roll(1, axis) + plane.roll(-1, axis)
    return plane


def _crystals(draws: Draws, ice: Ice) -> Tensor:
    """The height of the ice, each pixel that of the highest needle that crosses it; [SIDE, SIDE].

    Needles are points along lines: six arms from each seed, from each arm pairs of branches, shorter towards
    its tip, all thinning outwards.
    """
    count = ice.crystals
    seed_row, seed_column, turn = (draws.uniform(100 + k, count)[0] for k in range(3))
    length = draws.uniform(103, count, 6, low=0.25 * ice.arm, high=ice.arm)[0][..., None, None, None]
    angle = (turn * 2 * math.pi)[:, None] + torch.arange(6, device="cpu") * _SIXTY_DEGREES
    angle = (angle + draws.uniform(104, count, 6, low=-0.1, high=0.1)[0])[..., None, None, None]
    along = torch.arange(1, ice.arm, ice.spacing, device="cpu")[:, None, None]
    branches = len(along)
    along = along + draws.uniform(105, count, 6, branches, 2, 1, high=ice.spacing)[0]
    away = torch.arange(0, ice.arm / 2, 0.7, device="cpu")
    side = torch.tensor([-1.0, 1.0], device="cpu")[:, None] * _SIXTY_DEGREES
    reach = (length - along).clamp(min=0) / 2 * draws.uniform(106, count, 6, branches, 2, 1, low=0.3)[0]
    row = seed_row[:, None, None, None, None] * SIDE + along * angle.sin() + away * (angle + side).sin()
    column = seed_column[:, None, None, None, None] * SIDE + along * angle.cos() + away * (angle + side).cos()
    height = (1.0 - 0.5 * along / length) * (1.0 - 0.8 * away / reach.clamp(min=1e-3))
    height = height.masked_fill(away > reach, 0.0)
    grown = height > 0
    place = row.round().long().remainder(SIDE) * SIDE + column.round().long().remainder(SIDE)
    plane = torch.zeros(SIDE * SIDE, device="cpu")
    plane.scatter_reduce_(0, place[grown], height[grown], "amax")
    return plane.view(SIDE, SIDE)
