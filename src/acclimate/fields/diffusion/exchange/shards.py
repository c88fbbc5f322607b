"""A sequence cut over devices, stretch by stretch, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["QKV", "cut", "joined"]


class QKV(NamedTuple):
    """Queries, keys and values of some tokens, each `[B, n, H, D]`."""

    query: Tensor
    key: Tensor
    value: Tensor


def cut(tensor: Tensor, size: int, segments: Sequence[int] | None = None) -> list[Tensor]:
    """The shard of each of `size` devices, along axis 1.

    Arguments:
        tensor: `[B, N, ...]`.
        size: devices.
        segments: lengths of stretches, such as text and image, of which each device has its part; N by default.

    Raises:
        ValueError: stretches that do not add up to N, or that do not divide by `size`.

    >>> [shard.tolist() for shard in cut(torch.arange(6).view(1, 6), 2, (2, 4))]
    [[[0, 2, 3]], [[1, 4, 5]]]
    """
    stretches = _stretches(tensor.shape[1], size, segments)
    parts = [stretch.chunk(size, 1) for stretch in tensor.split(stretches, 1)]
    return [torch.cat(shard, 1) for shard in zip(*parts, strict=True)]


def joined(shards: Sequence[Tensor], segments: Sequence[int] | None = None) -> Tensor:
    """What `cut` made the shards of.

    >>> joined(cut(torch.arange(6).view(1, 6), 2, (2, 4)), (2, 4)).tolist()
    [[0, 1, 2, 3, 4, 5]]
    """
    stretches = _stretches(sum(shard.shape[1] for shard in shards), len(shards), segments)
    ends = list(accumulate(stretch // len(shards) for stretch in stretches))
    begins = [0, *ends[:-1]]
    return torch.cat([shard[:, begin:end] for begin, end in zip(begins, ends, strict=True) for shard in shards], 1)


def _stretches(tokens: int, size: int, segments: Sequence[int] | None) -> list[int]:
    stretches = [tokens] if segments is None else list(segments)
    if sum(stretches) != tokens or min(stretches, default=0) < 1:
        raise ValueError(
            f"found a sequence of {tokens} tokens and segments {stretches}, expected lengths of 1 or more that add up."
        )
    if any(stretch % size for stretch in stretches):
        raise ValueError(
            f"found stretches of {stretches} tokens for {size} devices, expected each to divide by {size}. Choose "
            "another image size, text length or number of devices."
        )
    return stretches
