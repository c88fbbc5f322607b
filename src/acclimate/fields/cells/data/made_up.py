"""Cells that nobody photographed: discs with lobed nuclei in the colours of laboratories that do not exist."""

from __future__ import annotations

from colorsys import hsv_to_rgb

import torch
from torch import Tensor

from acclimate.core import config
from acclimate.fields.cells.data.classes import FOUR
from acclimate.fields.cells.data.laboratory import Laboratory

__all__ = ["made_up"]

_TURN = 0.618
"""How far hues are turned from one laboratory to the next: by the golden ratio none comes twice."""

_LOBES = {
    "neutrophil": (3, 0.4, 0.34),
    "lymphocyte": (1, 0.1, 0.78),
    "monocyte": (1, 0.1, 0.68),
    "eosinophil": (2, 0.42, 0.36),
}
"""How many lobes a nucleus has, how far they are from the middle and how large: in radii of the cell."""


def made_up(count: int, seed: int, palettes: int = 2, size: int = 64) -> dict[str, Laboratory]:
    """Laboratories of made-up cells with masks: for tests and first steps without data.

    A cell is a disc in a background. Its class decides its nucleus: three lobes for neutrophils, a large round one for
    lymphocytes, one with a bay for monocytes, two lobes and coloured granules around them for eosinophils. Place, size,
    turn and noise differ from cell to cell; the colours of background, cytoplasm and nucleus only from laboratory to
    laboratory, whatever the seed.

    Arguments:
        count: cells of each laboratory, 1 or more; classes take turns.
        seed: of everything that is drawn.
        palettes: how many laboratories, 1 or more: `made-up-1`, `made-up-2`, ...
        size: pixels of a side, 16 or more.

    Raises:
        ValueError: an argument out of range.

    >>> list(made_up(4, seed=0)), made_up(4, seed=0)["made-up-1"].classes
    (['made-up-1', 'made-up-2'], ('neutrophil', 'lymphocyte', 'monocyte', 'eosinophil'))
    """
    config.whole(1, count=count, palettes=palettes)
    config.whole(16, size=size)
    generator = torch.Generator().manual_seed(seed)
    return {f"made-up-{i + 1}": _laboratory(f"made-up-{i + 1}", i, count, size, generator) for i in range(palettes)}


def _laboratory(name: str, palette: int, count: int, size: int, generator: torch.Generator) -> Laboratory:
    labels = torch.arange(count) % len(FOUR)
    drawn = [_cell(FOUR[label], size, generator) for label in labels.tolist()]
    masks = torch.stack([mask for mask, _ in drawn])
    parts = torch.stack([torch.where(granules, 3, mask.long()) for mask, granules in drawn])
    colours = _colours(palette)[parts].permute(0, 3, 1, 2)
    noise = torch.randn(colours.shape, generator=generator) * 6
    images = (colours + noise).round().clamp(0, 255).to(torch.uint8)
    return Laboratory(name, images, labels, FOUR, tuple(f"{name}/{i:04d}" for i in range(count)), masks)


def _colours(palette: int) -> Tensor:
    """Of background, cytoplasm, nucleus and granules, in a row each: 0 to 255."""
    turn = palette * _TURN
    parts = (
        (0.12 + turn, 0.25, 0.93),
        (0.95 + turn / 2, 0.30, 0.76),
        (0.75 + turn / 8, 0.70, 0.45),
        (0.02, 0.75, 0.72),
    )
    return torch.tensor([hsv_to_rgb(hue % 1, saturation, value) for hue, saturation, value in parts]) * 255


def _cell(name: str, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mask of a cell, int8 `[S, S]`, and where its granules are, bool."""
    x, y, grow, turn, stretch = torch.rand(5, generator=generator).tolist()
    radius = 0.55 + 0.15 * grow
    axis = torch.linspace(-1, 1, size)
    across, down = (axis - (x - 0.5) * 0.3) / radius, (axis - (y - 0.5) * 0.3) / (radius * (0.9 + 0.2 * stretch))
    cell = _disc(across, down, 0.0, 0.0, 1.0)
    number, away, large = _LOBES[name]
    angles = torch.tensor([(turn + k / max(3, number + 1)) * 2 * torch.pi for k in range(number)])
    middles = torch.stack((angles.cos(), angles.sin()), dim=1) * away
    lobes = torch.stack([_disc(across, down, x, y, large) for x, y in middles.tolist()])
    nucleus = lobes.any(0) & cell
    if name == "monocyte":
        x, y = (middles[0] * 5.5).tolist()
        nucleus &= ~_disc(across, down, x, y, 0.42)
    grains = torch.rand((size, size), generator=generator) < 0.4
    granules = grains & cell & ~nucleus if name == "eosinophil" else torch.zeros_like(cell)
    return cell.to(torch.int8) + nucleus.to(torch.int8), granules


def _disc(across: Tensor, down: Tensor, x: float, y: float, radius: float) -> Tensor:
    return (across[None, :] - x) ** 2 + (down[:, None] - y) ** 2 <= radius**2
