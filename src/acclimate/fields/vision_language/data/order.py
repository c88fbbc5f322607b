"""The order of a stream of labelled images: shuffled by a seed and the data set's name alone."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.core.inputs import even_rows

__all__ = ["arranged"]


def arranged(name: str, count: int, seed: int | None, size: int | None = None) -> Tensor:
    """Positions of `size` images of `count`, evenly spaced, then shuffled unless the seed is None: int64 `[size]`.

    Raises ValueError for a size that there is not.

    >>> arranged("pets", 10, None, 5).tolist()
    [0, 2, 4, 6, 8]
    """
    if size is not None:
        whole(1, size=size)
    chosen = even_rows(count, count if size is None else min(size, count))
    if seed is None:
        return chosen
    digest = hashlib.sha256(f"{seed} order {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return chosen[torch.randperm(len(chosen), generator=generator)]
