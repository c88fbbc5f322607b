"""What a segmenter learns from: the cells of laboratories together, some of them kept back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.sam.colours import Colours, colours_of

__all__ = ["Lessons"]

_NUCLEUS = 2


@dataclass(frozen=True, eq=False, slots=True)
class Lessons:
    """Cells whose masks are known, M of them.

    Arguments:
        images: uint8 `[M, 3, S, S]`.
        masks: int8 `[M, S, S]`.
        told: bool `[M]`, whether the mask tells the nucleus; one that does not may not teach that there is none.
        whose: int64 `[M]`, the place of each one's laboratory.
        learned, held: int64, places of the cells that are learned from, and of those that choose the epoch.
        own_colours: of each laboratory, by all its cells.
    """

    images: Tensor
    masks: Tensor
    told: Tensor
    whose: Tensor
    learned: Tensor
    held: Tensor
    own_colours: list[Colours]

    @classmethod
    def of(cls, known: Sequence[Laboratory], held_out: float, seed: int) -> Lessons:
        """Of laboratories all of whose masks are known; the share `held_out`, one cell at least if it is not 0, is
        drawn by the seed. ValueError where it leaves nothing."""
        images = torch.cat([each.images for each in known])
        masks = torch.cat([each.masks for each in known if each.masks is not None])
        whose = torch.repeat_interleave(torch.arange(len(known)), torch.tensor([len(each) for each in known]))
        held = max(1, round(held_out * len(images))) if held_out else 0
        if held >= len(images):
            raise ValueError(
                f"found {len(images)} cells with masks and held_out = {held_out}, which leaves none to learn from. "
                "Hold out less, or add masks."
            )
        order = torch.randperm(len(images), generator=Generator().manual_seed(seed))
        told = masks.flatten(1).amax(1) >= _NUCLEUS
        parts = order[held:].sort().values, order[:held].sort().values
        return cls(images, masks, told, whose, *parts, [colours_of(each.images) for each in known])

    @property
    def colours(self) -> Colours:
        """Of those that are learned from."""
        return colours_of(self.images[self.learned])
