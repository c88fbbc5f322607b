"""A stream: batches under shift, the same at each pass, with a protocol and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.streams.ahead import made_ahead
from acclimate.streams.composition import Composition, Rows, histogram
from acclimate.streams.dataset import Dataset, Pictures
from acclimate.streams.segments import Segment
from acclimate.streams.shifting import shifted

__all__ = ["JSON", "STREAM_FORMAT", "Batch", "DatasetStream", "Stream", "domain_histogram", "known_rows"]

STREAM_FORMAT = 1
"""Part of every protocol; it grows when the same choices begin to give other images."""

_UNTOLD = torch.zeros(0, dtype=torch.int64)

JSON: TypeAlias = "Mapping[str, JSON] | Sequence[JSON] | str | int | float | bool | None"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What arrives at once.

    Arguments:
        images: float32 `[B, 3, H, W]` in [0, 1]; the model normalises.
        labels: int64 `[B]`, or `[B, H, W]` of a segmentation, for scoring only; -1 where unknown.
        index: int64 `[B]`, each image's position in the data set.
        segment: the shift, for scoring only.
        position: the number of the batch in the stream, from 0.
        domains: int64 `[B]`, each image's domain as its place in `Stream.domains`, for scoring only; -1 where it is
            not told, which means that of the segment.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    segment: Segment
    position: int
    domains: Tensor = _UNTOLD

    def __post_init__(self) -> None:
        if self.domains is _UNTOLD:
            object.__setattr__(self, "domains", torch.full((len(self.images),), -1, dtype=torch.int64))


class Stream(ABC):
    """An iterable of `Batch`, the same at each pass.

    Arguments:
        name: as in records, tables and plots.
        segments: the shifts, in order.
        classes: names, in the order of the model's outputs; empty where unknown.
        batch_size: images in a batch; the last one of a segment may be smaller. 0 where unknown.
    """

    def __init__(self, name: str, segments: tuple[Segment, ...], classes: tuple[str, ...], batch_size: int) -> None:
        self.name = name
        self.segments = segments
        self.classes = classes
        self.batch_size = batch_size

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]: ...

    @abstractmethod
    def __len__(self) -> int:
        """The number of batches; `TypeError` where it is unknown."""

    @abstractmethod
    def protocol(self) -> dict[str, JSON]:
        """All choices that shape the stream, ready for JSON. No path of this machine is in it."""

    @abstractmethod
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change if and only if the protocol or the data does."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""

    def place_of(self, position: int) -> int:
        """Which of the segments a batch belongs to, by its number: they are equally long, unless a stream says else."""
        return position // (len(self) // len(self.segments))

    @property
    def domains(self) -> tuple[Segment, ...]:
        """The different shifts, in the order of the stream; what `Batch.domains` counts."""
        return tuple(dict.fromkeys(self.segments))

    @property
    def source(self) -> Segment | None:
        """The domain that the model was trained on, where one is marked: forgetting is measured on it."""
        return None

    def held_out(self) -> Iterator[Batch]:
        """Labelled source images that are in no batch, for measuring what was forgotten; none in most streams."""
        return iter(())

    def positions(self, dataset: str, split: str) -> Tensor:
        """Which pictures of this data set the stream shows or holds out: int64, empty where none are known."""
        return torch.zeros(0, dtype=torch.int64)

    def rows(self) -> Rows | None:
        """Batch, domain and label of every image, in order; None where only a pass over the stream would tell."""
        return None

    def composition(self) -> Composition:
        """How many images of which domains there are, and how they meet in batches; of some streams a pass tells it."""
        names = tuple(_told(segment, self.domains) for segment in self.domains)
        return Composition.of(known_rows(self), names)

    def _protocol_bytes(self) -> bytes:
        return json.dumps(self.protocol(), sort_keys=True).encode()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}, {len(self.segments)} segments>"


def _told(segment: Segment, among: Sequence[Segment]) -> str:
    """A domain's name, with its severity where there are several."""
    alone = sum(other.name == segment.name for other in among) == 1
    return segment.name if alone else f"{segment.name} {segment.severity}"


def known_rows(stream: Stream) -> Rows:
    """Batch, domain and label of every image, by a pass over the stream where nothing less tells."""
    found = stream.rows()
    return _passed(stream, stream.domains) if found is None else found


def domain_histogram(stream: Stream) -> NDArray[np.int64]:
    """Images of each domain in each batch: int64 `[batches, domains]`."""
    return histogram(known_rows(stream), len(stream.domains))


def _passed(batches: Iterable[Batch], domains: Sequence[Segment]) -> Rows:
    places = {segment: place for place, segment in enumerate(domains)}
    numbers: list[Tensor] = []
    found: list[Tensor] = []
    labels: list[Tensor] = []
    for number, batch in enumerate(batches):
        told = batch.domains
        found.append(torch.where(told < 0, places[batch.segment], told) if (told < 0).any() else told)
        numbers.append(torch.full_like(told, number))
        labels.append(batch.labels if batch.labels.ndim == 1 else torch.full_like(told, -1))
    if not found:
        found = numbers = labels = [torch.zeros(0, dtype=torch.int64)]
    return Rows(torch.cat(numbers).numpy(), torch.cat(found).numpy(), torch.cat(labels).numpy())


class DatasetStream(Stream):
    """A data set under shift. `open_stream` and `stream_dataset` make them.

    Corruptions are drawn batch by batch; the whole stream is never in memory. A corrupted image depends only
    on the picture, its position in the data set, the corruption and the seed, not on its neighbours.

    Arguments:
        name: as in records.
        dataset: the pictures and their labels.
        order: int64 `[S]`, positions in the data set; each segment walks through all of them.
        segments: the shifts, in order.
        batch_size: images in a batch.
        corruption_seed: of the random corruptions.
        choices: what else belongs into the protocol.
    """

    def __init__(
        self,
        name: str,
        dataset: Pictures,
        *,
        order: Tensor,
        segments: tuple[Segment, ...],
        batch_size: int,
        corruption_seed: int,
        choices: Mapping[str, JSON],
    ) -> None:
        super().__init__(name, segments, dataset.classes, batch_size)
        self.dataset = dataset
        self._order = order
        self._corruption_seed = corruption_seed
        self._choices = dict(choices)
        self._digest: str | None = None

    def __len__(self) -> int:
        return len(self.segments) * -(-len(self._order) // self.batch_size)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.dataset.image_shape

    @property
    def order(self) -> Tensor:
        """Positions in the data set of the images of each segment, as they arrive: int64 `[S]`."""
        return self._order.clone()

    def __iter__(self) -> Iterator[Batch]:
        places = ((index, segment) for segment in self.segments for index in self._order.split(self.batch_size))
        ahead = 0 if isinstance(self.dataset.images, Tensor) else self.dataset.images.ahead
        for position, ((index, segment), images) in enumerate(made_ahead(self._images, places, ahead)):
            # A clone: what a consumer does to its batch must not reach the next pass.
            domains = torch.full((len(index),), self.domains.index(segment), dtype=torch.int64)
            yield Batch(images, self.dataset.answers(index), index.clone(), segment, position, domains)

    def _images(self, place: tuple[Tensor, Segment]) -> Tensor:
        index, segment = place
        return shifted(self.dataset, index, segment, self._corruption_seed)

    def positions(self, dataset: str, split: str) -> Tensor:
        mine = (self.dataset.name, self.dataset.split) == (dataset, split)
        return self.order if mine else super().positions(dataset, split)

    def rows(self) -> Rows:
        count, times = len(self._order), len(self.segments)
        within = np.arange(count) // self.batch_size
        batches = (np.arange(times)[:, None] * (within[-1] + 1) + within).reshape(-1)
        places = np.array([self.domains.index(segment) for segment in self.segments], dtype=np.int64)
        labels = np.full(count, -1, dtype=np.int64)
        if isinstance(self.dataset, Dataset):
            labels = self.dataset.labels[self._order].numpy()
        return Rows(batches.astype(np.int64), np.repeat(places, count), np.tile(labels, times))

    def protocol(self) -> dict[str, JSON]:
        clean = all(segment.severity == 0 for segment in self.segments)
        return {
            "format": STREAM_FORMAT,
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "available": len(self.dataset),
            "size": len(self._order),
            "image_shape": list(self.image_shape),
            "classes": list(self.classes),
            "batch_size": self.batch_size,
            "segments": [[segment.name, segment.severity] for segment in self.segments],
            "corruptions": "none" if clean else "stored" if self.dataset.blocks is not None else "generated",
            "corruption_seed": self._corruption_seed,
            "labels_known": True,
            "normalisation": "inside the model; images are in [0, 1]",
            **self._choices,
        }

    def fingerprint(self) -> str:
        """SHA-256 over the protocol, the order, the labels and the stored bytes of the images in use.

        The stored bytes are the uint8 pixels before corruption (of image folders: the files), so that a
        fingerprint is cheap: the corrupted images follow from them, the segments and the seed, which are
        hashed too.
        """
        if self._digest is None:
            digest = hashlib.sha256(self._protocol_bytes())
            digest.update(self._order.numpy().tobytes())
            for piece in self.dataset.answers_source(self._order):
                digest.update(piece)
            sources = self.segments if self.dataset.blocks is not None else self.segments[:1]
            for segment in dict.fromkeys(sources):
                for piece in self.dataset.source(self._order, segment):
                    digest.update(piece)
            self._digest = digest.hexdigest()
        return self._digest
