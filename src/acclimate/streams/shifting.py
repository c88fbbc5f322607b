"""From stored pixels to the images of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.streams.corruptions import corrupt
from acclimate.streams.dataset import Pictures
from acclimate.streams.segments import Segment

__all__ = ["shifted"]


def shifted(pictures: Pictures, index: Tensor, shift: Segment, seed: int) -> Tensor:
    """The pictures at these positions under a shift: int64 `[B]` -> float32 `[B, 3, H, W]` in [0, 1].

    Each image follows from the picture, its position, the shift and the seed alone. What is stored corrupted is only
    read.
    """
    stored = pictures.read(index, shift)
    if shift.severity == 0 or pictures.blocks is not None:
        return stored.to(torch.float32).div_(255)
    return corrupt(stored, shift.name, shift.severity, index=index, seed=seed)
