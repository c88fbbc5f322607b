"""Images whose every pixel has a label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from acclimate.streams.dataset import LazyImages, Pictures
from acclimate.streams.segments import Segment

__all__ = ["VOID", "LazyMaps", "Scenes"]

VOID = -1
"""The label of pixels that belong to no class: neither learned from nor scored."""

_CHUNK = 64


class LazyMaps(ABC):
    """Label maps that stay on disk until a batch needs them."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """`(N, H, W)`, as of a tensor."""

    @abstractmethod
    def read(self, index: Tensor) -> Tensor:
        """The maps at these positions: int64 `[B]` -> int64 `[B, H, W]`, `VOID` where there is no class."""

    def source(self, index: Tensor) -> Iterator[bytes]:
        """What a fingerprint hashes: the labels, unless the files themselves are cheaper to read."""
        for part in index.split(_CHUNK):
            yield self.read(part).to(torch.int16).contiguous().numpy().tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Scenes(Pictures):
    """Images of one split with a label for each pixel.

    Arguments:
        name: what records and plots call it.
        images: uint8 `[N, 3, H, W]`, RGB: a tensor, or `LazyImages`.
        labels: `[N, H, W]`: an int8 or int64 tensor, or `LazyMaps`; each below `len(classes)`, `VOID` where there is
            no class.
        classes: the names of the classes, in the order of the model's outputs.
        split: it goes into the protocol.

    Raises:
        ValueError: images, labels and classes which do not fit each other.

    >>> images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    >>> len(Scenes("black", images, torch.zeros(2, 8, 8, dtype=torch.int8), ("night", "ink")))
    2
    """

    name: str
    images: Tensor | LazyImages
    labels: Tensor | LazyMaps
    classes: tuple[str, ...]
    split: str = "test"
    blocks: Mapping[Segment, int] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        count, _, height, width = self.checked_shape()
        if tuple(self.labels.shape) != (count, height, width):
            raise ValueError(
                f"The label maps of {self.name!r} have shape {list(self.labels.shape)}; expected "
                f"[{count}, {height}, {width}], one label for each pixel of the images."
            )
        if isinstance(self.labels, LazyMaps):
            return
        if self.labels.dtype not in (torch.int8, torch.int64):
            raise ValueError(
                f"The label maps of {self.name!r} are {self.labels.dtype}; expected torch.int8 or torch.int64, "
                f"and {VOID} where there is no class."
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < VOID or high >= len(self.classes):
            raise ValueError(
                f"The labels of {self.name!r} reach from {low} to {high}, but it names {len(self.classes)} "
                f"classes; labels count from 0, and {VOID} is no class."
            )

    def __len__(self) -> int:
        return self.images.shape[0]

    def answers(self, index: Tensor) -> Tensor:
        return self.labels.read(index) if isinstance(self.labels, LazyMaps) else self.labels[index].to(torch.int64)

    def answers_source(self, index: Tensor) -> Iterator[bytes]:
        if isinstance(self.labels, LazyMaps):
            yield from self.labels.source(index)
            return
        for part in index.split(_CHUNK):
            yield self.labels[part].to(torch.int16).numpy().tobytes()
