"""Textures of frost, computed: feathers of ice that grow along a field of directions."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.fog import plasma_fractal

SIDE = 512


@dataclass(frozen=True, kw_only=True)
class Ice:
    """The look of one texture. Levels are 0..255, lengths pixels of the texture.

    Arguments:
        colour: mean red, green, blue.
        deviation: standard deviation of red, green, blue.
        crystals: how many seeds the ice grows from; each gives its grain a direction of its own.
        needle: length of a needle.
        swirl: how far directions bend within a grain, in turns.
        clouding: share of the variance that is slow change of thickness, 0..1.
        bareness: how much darker gaps are than needles are bright; 0 is symmetric.
    """

    colour: tuple[float, float, float]
    deviation: tuple[float, float, float]
    crystals: int
    needle: int
    swirl: float
    clouding: float
    bareness: float


KINDS = (
    Ice(
        colour=(198, 203, 212), deviation=(20, 20, 19),
        crystals=500, needle=14, swirl=0.3, clouding=0.2, bareness=0.5,
    ),
    Ice(
        colour=(204, 208, 217), deviation=(17, 17, 16),
        crystals=120, needle=24, swirl=0.6, clouding=0.25, bareness=0.5,
    ),
    Ice(
        colour=(147, 162, 174), deviation=(27, 26, 25),
        crystals=900, needle=9, swirl=0.2, clouding=0.1, bareness=0.1,
    ),
    Ice(
        colour=(121, 132, 142), deviation=(40, 39, 37),
        crystals=60, needle=30, swirl=0.5, clouding=0.25, bareness=0.0,
    ),
    Ice(
        colour=(78, 147, 163), deviation=(26, 17, 15),
        crystals=30, needle=40, swirl=1.0, clouding=0.5, bareness=-0.15,
    ),
)  # fmt: skip


@lru_cache(maxsize=8)
def frost_textures(device: torch.device) -> Tensor:
    """All textures, float32 [5, 3, 512, 512] in [0, 1] on 8-bit levels, each seamless at its borders."""
    return torch.stack([_texture(number, ice) for number, ice in enumerate(KINDS)]).to(device)


def _texture(number: int, ice: Ice) -> Tensor:
    draws = Draws.keyed(torch.tensor([number], device="cpu"), seed=0, label="frost-texture")
    angle = _directions(draws, ice)
    fine = _needles(draws.normal(200, SIDE, SIDE)[0], angle, ice.needle)
    broad = _needles(draws.normal(201, SIDE, SIDE)[0], angle, 3 * ice.needle)
    feathers = _unit(torch.maximum(_unit(fine), _unit(broad)))
    clouds = _unit(plasma_fractal(draws, SIDE, 2.0)[0])
    thickness = math.sqrt(1 - ice.clouding) * feathers + math.sqrt(ice.clouding) * clouds
    shaped = _unit(-torch.expm1(-ice.bareness * thickness) / ice.bareness if ice.bareness else thickness)
    colour, deviation = (torch.tensor(levels, device="cpu")[:, None, None] for levels in (ice.colour, ice.deviation))
    return (colour + deviation * shaped).round_().clamp_(0, 255).div_(255).float()


def _unit(plane: Tensor) -> Tensor:
    return (plane - plane.mean()) / plane.std()


def _directions(draws: Draws, ice: Ice) -> Tensor:
    """The direction of growth of each pixel in radians: that of the nearest seed, bent slowly from place to place."""
    seeds = draws.uniform(100, ice.crystals, 2, high=SIDE)[0]
    place = torch.arange(SIDE, dtype=torch.float32, device="cpu")
    nearest = torch.full((SIDE, SIDE), math.inf, device="cpu")
    grain = torch.zeros(SIDE, SIDE, dtype=torch.int64, device="cpu")
    for number, (row, column) in enumerate(seeds.tolist()):
        down, right = ((place - centre).abs() for centre in (row, column))
        down, right = (torch.minimum(gap, SIDE - gap) ** 2 for gap in (down, right))
        distance = down[:, None] + right
        closer = distance < nearest
        nearest = torch.where(closer, distance, nearest)
        grain = torch.where(closer, number, grain)
    own = draws.uniform(101, ice.crystals)[0][grain]
    bend = plasma_fractal(Draws(draws.keys + 1), SIDE, 1.9)[0]
    return 2 * math.pi * (own + ice.swirl * bend)


def _needles(noise: Tensor, angle: Tensor, length: int) -> Tensor:
    """Line integral convolution: the mean of the noise along the field line through each pixel.

    Source: Cabral and Leedom, *Imaging vector fields using line integral convolution*, SIGGRAPH 1993.
    """
    total = noise.clone()
    grid = torch.arange(SIDE, dtype=torch.float32, device="cpu")
    down, right = angle.sin(), angle.cos()
    for way in (1.0, -1.0):
        row, column = grid[:, None].expand(SIDE, SIDE), grid.expand(SIDE, SIDE)
        place = torch.arange(SIDE * SIDE, device="cpu").view(SIDE, SIDE)
        for _ in range(length // 2):
            row = row + way * down.take(place)
            column = column + way * right.take(place)
            place = row.round().long().remainder(SIDE) * SIDE + column.round().long().remainder(SIDE)
            total += noise.take(place)
    return total
