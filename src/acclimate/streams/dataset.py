"""Labelled images, in memory or read when asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.streams.segments import CLEAN, Segment

__all__ = ["Dataset", "LazyImages", "Pictures"]

_CHUNK = 512


class LazyImages(ABC):
    """Images that stay on disk until a batch needs them."""

    ahead: ClassVar[int] = 0
    """How many batches a stream reads before they are asked for, in a thread; worth it where reading is slow."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, 3, H, W)`, as of a tensor."""

    @abstractmethod
    def read(self, index: Tensor) -> Tensor:
        """The images at these positions: int64 `[B]` -> uint8 `[B, 3, H, W]`."""

    def source(self, index: Tensor) -> Iterator[bytes]:
        """What a fingerprint hashes: the pixels, unless the files themselves are cheaper to read."""
        for part in index.split(_CHUNK):
            yield self.read(part).contiguous().numpy().tobytes()

    def __len__(self) -> int:
        return self.shape[0]


class Pictures(ABC):
    """Images with answers: what a stream needs of a data set. `Dataset` has a label for each image, `Scenes` a map."""

    __slots__ = ()

    name: str
    images: Tensor | LazyImages
    classes: tuple[str, ...]
    split: str
    blocks: Mapping[Segment, int] | None

    @abstractmethod
    def __len__(self) -> int:
        """The number of different pictures."""

    @abstractmethod
    def answers(self, index: Tensor) -> Tensor:
        """What a batch carries as labels: int64 `[B]` -> int64 `[B, ...]`."""

    @abstractmethod
    def answers_source(self, index: Tensor) -> Iterator[bytes]:
        """What a fingerprint hashes of the answers, in pieces."""

    def checked_shape(self) -> tuple[int, ...]:
        """The shape of the images. ValueError unless it is `[N, 3, H, W]` and they are uint8."""
        shape = tuple(self.images.shape)
        if len(shape) != 4 or shape[1] != 3 or 0 in shape:
            raise ValueError(f"The images of {self.name!r} have shape {shape}; expected [N, 3, H, W].")
        if isinstance(self.images, Tensor) and self.images.dtype != torch.uint8:
            raise ValueError(
                f"The images of {self.name!r} are {self.images.dtype}; expected torch.uint8. Convert them: "
                "(images * 255).round().to(torch.uint8)."
            )
        return shape

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def _stored(self, index: Tensor, segment: Segment) -> Tensor:
        if self.blocks is None:
            return index
        if segment not in self.blocks:
            raise ValueError(
                f"{self.name!r} is stored corrupted and holds no {segment.name!r} at severity "
                f"{segment.severity}. It holds {self._inventory(self.blocks)}."
            )
        return index + self.blocks[segment]

    @staticmethod
    def _inventory(blocks: Mapping[Segment, int]) -> str:
        """Which corruptions are stored at which severities."""
        levels: dict[str, list[str]] = {}
        for segment in blocks:
            levels.setdefault(segment.name, []).append(str(segment.severity))
        together: dict[str, list[str]] = {}
        for name in sorted(levels):
            together.setdefault(" ".join(levels[name]), []).append(name)
        return "; ".join(f"severities {level} of: {', '.join(names)}" for level, names in together.items())

    def read(self, index: Tensor, segment: Segment = CLEAN) -> Tensor:
        """The stored pixels at these positions: int64 `[B]` -> uint8 `[B, 3, H, W]`.

        The segment matters only where images are stored corrupted; it chooses the block.
        """
        stored = self._stored(index, segment)
        return self.images[stored] if isinstance(self.images, Tensor) else self.images.read(stored)

    def source(self, index: Tensor, segment: Segment = CLEAN) -> Iterator[bytes]:
        """The stored bytes at these positions, in pieces, for a fingerprint."""
        stored = self._stored(index, segment)
        if isinstance(self.images, LazyImages):
            yield from self.images.source(stored)
            return
        for part in stored.split(_CHUNK):
            yield self.images[part].numpy().tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Dataset(Pictures):
    """Labelled images of one split.

    Arguments:
        name: what records and plots call it.
        images: uint8 `[N, 3, H, W]`, RGB: a tensor, or `LazyImages`.
        labels: int64 `[N]`, each below `len(classes)`.
        classes: the names of the classes, in the order of the model's outputs.
        split: `train` or `test`; it goes into the protocol.
        blocks: only for images that are stored corrupted: where the block of each segment starts in
            `images`. All blocks have the same length and hold the same pictures in the same order.

    Raises:
        ValueError: images, labels and classes which do not fit each other.

    >>> images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    >>> len(Dataset("black", images, torch.tensor([0, 1]), ("night", "ink")))
    2
    """

    name: str
    images: Tensor | LazyImages
    labels: Tensor
    classes: tuple[str, ...]
    split: str = "test"
    blocks: Mapping[Segment, int] | None = None

    def __post_init__(self) -> None:
        shape = self.checked_shape()
        if self.labels.dtype != torch.int64 or self.labels.shape != shape[:1]:
            raise ValueError(
                f"The labels of {self.name!r} are {self.labels.dtype} {list(self.labels.shape)}; expected "
                f"torch.int64 [{shape[0]}], one for each image."
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise ValueError(
                f"The labels of {self.name!r} reach from {low} to {high}, but it names {len(self.classes)} "
                "classes; labels count from 0."
            )

    def __len__(self) -> int:
        """The number of different pictures: of images, or of one block where they are stored corrupted."""
        return int(self.labels.shape[0]) // (len(self.blocks) if self.blocks else 1)

    def answers(self, index: Tensor) -> Tensor:
        return self.labels[index]

    def answers_source(self, index: Tensor) -> Iterator[bytes]:
        yield self.labels[index].numpy().tobytes()
