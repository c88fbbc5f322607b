"""A cell seen from all sides: quarter turns and mirror images, and what a segmenter makes of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.embedding.targets import targets
from acclimate.fields.cells.sam.seeing import see
from acclimate.fields.cells.sam.segmenter import Segmenter

__all__ = ["Views", "look", "side"]

_SMALLEST = 1e-3


@dataclass(frozen=True, eq=False, slots=True)
class Views:
    """What was seen of a laboratory's cells from V sides.

    Arguments:
        features: float16 `[V, N, D, g, g]`, before the segmenter's neck.
        pictures: uint8 `[V, N, 3, P, P]`, the cells alone, see `targets`.
        masks: int8 `[N, S, S]`, predicted, of the pictures as they are.
        images: uint8 `[N, 3, S, S]`, these: the laboratory's own, not a copy.
        empty: places of the cells without any mask, whose whole picture counts.
    """

    features: Tensor
    pictures: Tensor
    masks: Tensor
    images: Tensor
    empty: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.features.shape[1]

    def standard(self) -> Views:
        """Features and pictures brought to the mean and deviation of all laboratories: 0 and 1 in each channel of the
        features, 0.5 and 0.2 of full light in each colour of the pictures, over this laboratory's cells."""
        return replace(self, features=_standard(self.features), pictures=_recoloured(self.pictures))


def side(images: Tensor, number: int) -> Tensor:
    """Images `[..., H, W]` turned by `number` quarters, from 4 on mirrored, too; 0 leaves them.

    >>> side(torch.tensor([[1, 2], [3, 4]]), 1).tolist()
    [[2, 4], [1, 3]]
    """
    turned = torch.rot90(images, number % 4, (-2, -1))
    return (turned.flip(-1) if number >= 4 else turned).contiguous()


def look(
    model: Segmenter,
    laboratory: Laboratory,
    *,
    sides: int = 1,
    picture: int = 128,
    own_colours: bool = False,
    room: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Views:
    """Look at all cells from so many sides, 1 to 8.

    Arguments: `picture`, pixels of a side of `Views.pictures`; `own_colours`, see `see`; `room`, a folder in whose file
    system feature maps are kept instead of in memory, in a file that goes with them.

    Cost: `sides` forwards of each image; `2 sides D g^2 + 3 sides picture^2` bytes a cell.
    """
    whole(1, sides=sides)
    if sides > 8:
        raise ValueError(f"sides is {sides}, expected 1 to 8: four quarter turns, and their mirror images.")
    size = model.size
    features = _empty((sides, len(laboratory), size.width, size.grid, size.grid), room)
    pictures: list[Tensor] = []
    empty: list[int] = []
    masks = torch.zeros(0)
    for number in range(sides):
        turned = replace(laboratory, images=side(laboratory.images, number), masks=None)

        def tell(done: int, total: int, before: int = number) -> None:
            if progress is not None:
                progress(before * total + done, sides * total)

        seen = see(model, turned, own_colours=own_colours, into=features[number], progress=tell)
        drawn, without = targets(turned.images, seen.masks > 0, picture)
        pictures.append((drawn * 255).round().to(torch.uint8))
        if number == 0:
            masks, empty = seen.masks, without
    return Views(features, torch.stack(pictures), masks, laboratory.images, tuple(empty))


def _empty(shape: tuple[int, ...], room: Path | None) -> Tensor:
    if room is None:
        return torch.empty(shape, dtype=torch.float16)
    room.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=room) as file:
        return torch.from_numpy(np.memmap(file, np.float16, "w+", shape=shape))


def _standard(features: Tensor) -> Tensor:
    found = torch.empty_like(features)
    for channel in range(features.shape[2]):  # one at a time: all together would be twice the size in float32
        own = features[:, :, channel].float()
        found[:, :, channel] = ((own - own.mean()) / own.std().clamp_min(_SMALLEST)).to(features.dtype)
    return found


def _recoloured(pictures: Tensor) -> Tensor:
    found = torch.empty_like(pictures)
    for colour in range(3):
        own = pictures[:, :, colour].float() / 255
        moved = (own - own.mean()) / own.std().clamp_min(_SMALLEST) * 0.2 + 0.5
        found[:, :, colour] = (moved.clamp(0, 1) * 255).round().to(torch.uint8)
    return found
