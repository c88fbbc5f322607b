"""Streams in which several domains come together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from acclimate.streams.ahead import made_ahead
from acclimate.streams.arrangements import Arrangement, Member
from acclimate.streams.composition import Composition, Rows
from acclimate.streams.dataset import Dataset
from acclimate.streams.segments import CLEAN, Segment
from acclimate.streams.shifting import shifted
from acclimate.streams.stream import JSON, STREAM_FORMAT, Batch, Stream

__all__ = ["Domain", "MixedStream"]


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """One of the domains of a mixed stream: pictures, and what happens to them.

    Arguments:
        name: as in tables; another one for each domain of a stream.
        pictures: the images and their labels.
        shift: the corruption that is put on them; clean for images that are another domain by themselves. Where they
            are stored corrupted: the block that is read.
        labels: where the classes of the pictures are not those of the stream: int64 `[own classes]`, each one's class
            in the stream.
        is_source: the domain that the model was trained on, on which forgetting is measured.

    Raises:
        ValueError: no name, or a label map of another form than the pictures' classes.
    """

    name: str
    pictures: Dataset
    shift: Segment = CLEAN
    labels: Tensor | None = None
    is_source: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("A domain has no name; expected a word such as 'fog' or 'sketch'.")
        classes = len(self.pictures.classes)
        if self.labels is not None and (self.labels.dtype != torch.int64 or self.labels.shape != (classes,)):
            raise ValueError(
                f"The label map of the domain {self.name!r} is {self.labels.dtype} {list(self.labels.shape)}; expected "
                f"torch.int64 [{classes}], the stream's class for each of the pictures' own."
            )

    @property
    def segment(self) -> Segment:
        """What tables call it."""
        return Segment(self.name, self.shift.severity)

    def answers(self, index: Tensor) -> Tensor:
        """The stream's labels of the pictures at these positions."""
        own = self.pictures.answers(index)
        return own if self.labels is None else self.labels[own]


class MixedStream(Stream):
    """Rows of several domains in any order; `open_stream` and `mix` make them.

    A corrupted image depends only on the picture, its position in its data set, the corruption and the seed, as in
    every stream: not on its batch.

    Arguments:
        name: as in records.
        domains: of equal image shapes, each name once.
        group: what each domain shows, in the order of `domains`.
        arrangement: which of them come when.
        segments: stretches of time, for scoring; one for the whole stream, one for each domain, or those that the
            arrangement numbers.
        classes: names, in the order of the model's outputs.
        batch_size: images in a batch.
        seed: of the random corruptions.
        choices: what else belongs into the protocol.
        held_out: positions of source pictures that are in no batch, for measuring what was forgotten at the end.
        published: images of each domain where a composition was published; see `Composition`.

    Raises:
        ValueError: domains of the same name, of other image shapes, or with labels that no class has.
    """

    def __init__(
        self,
        name: str,
        domains: Sequence[Domain],
        group: Sequence[Member],
        arrangement: Arrangement,
        *,
        segments: tuple[Segment, ...],
        classes: tuple[str, ...],
        batch_size: int,
        seed: int,
        choices: Mapping[str, JSON],
        held_out: Tensor | None = None,
        published: tuple[int, ...] = (),
    ) -> None:
        super().__init__(name, segments, classes, batch_size)
        _check(name, domains, classes)
        self.parts = tuple(domains)
        self._group = tuple(group)
        self._arrangement = arrangement
        self._seed = seed
        self._choices = dict(choices)
        self._held_out = held_out
        self._published = published
        self._digest: str | None = None
        self._offsets = _offsets(domains)

    @property
    def domains(self) -> tuple[Segment, ...]:
        return tuple(domain.segment for domain in self.parts)

    @property
    def source(self) -> Segment | None:
        return next((domain.segment for domain in self.parts if domain.is_source), None)

    def __len__(self) -> int:
        return len(self._arrangement.starts) - 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.parts[0].pictures.image_shape

    def __iter__(self) -> Iterator[Batch]:
        lazy = [part.pictures.images.ahead for part in self.parts if not isinstance(part.pictures.images, Tensor)]
        for _, batch in made_ahead(self._made, range(len(self)), max(lazy, default=0)):
            yield batch

    def _made(self, position: int) -> Batch:
        arrangement = self._arrangement
        rows = slice(int(arrangement.starts[position]), int(arrangement.starts[position + 1]))
        domains, ranks = arrangement.domains[rows], arrangement.ranks[rows]
        count = len(domains)
        images = torch.empty(count, *self.image_shape)
        labels, index = torch.empty(count, dtype=torch.int64), torch.empty(count, dtype=torch.int64)
        for number in np.unique(domains).tolist():
            part = self.parts[number]
            places = torch.from_numpy(np.flatnonzero(domains == number))
            own = torch.from_numpy(self._group[number].positions[ranks[domains == number]])
            images[places] = shifted(part.pictures, own, part.shift, self._seed)
            labels[places] = part.answers(own)
            index[places] = own + self._offsets[number]
        segment = self.segments[self.place_of(position)]
        return Batch(images, labels, index, segment, position, torch.from_numpy(domains.copy()))

    def place_of(self, position: int) -> int:
        arrangement = self._arrangement
        if arrangement.stretches is not None:
            return int(arrangement.stretches[position])
        return 0 if len(self.segments) == 1 else int(arrangement.domains[arrangement.starts[position]])

    def rows(self) -> Rows:
        arrangement = self._arrangement
        labels = np.empty(len(arrangement.domains), dtype=np.int64)
        for number, member in enumerate(self._group):
            mine = arrangement.domains == number
            labels[mine] = member.labels[arrangement.ranks[mine]]
        return Rows(arrangement.batches, arrangement.domains, labels)

    def composition(self) -> Composition:
        return Composition.of(self.rows(), tuple(part.name for part in self.parts), self._published)

    def positions(self, dataset: str, split: str) -> Tensor:
        own: list[Tensor] = []
        for part, member in zip(self.parts, self._group, strict=True):
            if (part.pictures.name, part.pictures.split) == (dataset, split):
                own.append(torch.from_numpy(member.positions))
                if part.is_source and self._held_out is not None:
                    own.append(self._held_out)
        return torch.cat(own).unique() if own else torch.zeros(0, dtype=torch.int64)

    def held_out(self) -> Iterator[Batch]:
        number = next((place for place, part in enumerate(self.parts) if part.is_source), None)
        if number is None or self._held_out is None:
            return
        part = self.parts[number]
        for position, own in enumerate(self._held_out.split(self.batch_size)):
            images = shifted(part.pictures, own, part.shift, self._seed)
            index, domains = own + self._offsets[number], torch.full((len(own),), number, dtype=torch.int64)
            yield Batch(images, part.answers(own), index, part.segment, position, domains)

    def protocol(self) -> dict[str, JSON]:
        return {
            "format": STREAM_FORMAT,
            "dataset": " + ".join(dict.fromkeys(part.pictures.name for part in self.parts)),
            "domains": [self._told(part, member) for part, member in zip(self.parts, self._group, strict=True)],
            "image_shape": list(self.image_shape),
            "classes": list(self.classes),
            "batch_size": self.batch_size,
            "segments": [[segment.name, segment.severity] for segment in self.segments],
            "corruption_seed": self._seed,
            "labels_known": True,
            "normalisation": "inside the model; images are in [0, 1]",
            "held_out": 0 if self._held_out is None else len(self._held_out),
            **self._choices,
        }

    @staticmethod
    def _told(part: Domain, member: Member) -> dict[str, JSON]:
        stored = part.pictures.blocks is not None
        return {
            "name": part.name,
            "dataset": part.pictures.name,
            "split": part.pictures.split,
            "available": len(part.pictures),
            "images": len(member),
            "shift": [part.shift.name, part.shift.severity],
            "corruption": "none" if part.shift.severity == 0 else "stored" if stored else "generated",
            "source": part.is_source,
        }

    def fingerprint(self) -> str:
        """SHA-256 over the protocol, the order, the labels and the stored bytes of the images in use."""
        if self._digest is None:
            digest = hashlib.sha256(self._protocol_bytes())
            arrangement = self._arrangement
            for array in (arrangement.starts, arrangement.domains, arrangement.ranks):
                digest.update(np.ascontiguousarray(array).tobytes())
            for number, (part, member) in enumerate(zip(self.parts, self._group, strict=True)):
                digest.update(member.positions.tobytes())
                own = torch.from_numpy(member.positions)
                if part.is_source and self._held_out is not None:
                    own = torch.cat([own, self._held_out])
                digest.update(part.answers(own).numpy().tobytes())
                if self._first_to_read(number, own):
                    for piece in part.pictures.source(own.unique(), part.shift):
                        digest.update(piece)
            self._digest = digest.hexdigest()
        return self._digest

    def _first_to_read(self, number: int, own: Tensor) -> bool:
        """Whether no domain before it has read the same bytes: the same pictures before they are corrupted."""
        mine = self.parts[number]
        if mine.pictures.blocks is not None:
            return True
        for part, member in zip(self.parts[:number], self._group[:number], strict=True):
            if part.pictures is mine.pictures and np.array_equal(np.unique(member.positions), own.unique().numpy()):
                return False
        return True


def _offsets(domains: Sequence[Domain]) -> list[int]:
    """Where the positions of each domain's pictures begin in `Batch.index`: the same pictures have the same ones."""
    distinct = list({id(domain.pictures): domain.pictures for domain in domains}.values())
    begins = dict(zip(map(id, distinct), accumulate((len(each) for each in distinct), initial=0), strict=False))
    return [begins[id(domain.pictures)] for domain in domains]


def _check(name: str, domains: Sequence[Domain], classes: tuple[str, ...]) -> None:
    if not domains:
        raise ValueError(f"The stream {name!r} has no domains; expected at least one.")
    names = [domain.name for domain in domains]
    twice = sorted({each for each in names if names.count(each) > 1})
    if twice:
        raise ValueError(f"Several domains of {name!r} are named {', '.join(twice)}; expected another name for each.")
    if sum(domain.is_source for domain in domains) > 1:
        raise ValueError(f"Several domains of {name!r} are marked as the source; expected one at most.")
    first = domains[0].pictures.image_shape
    for domain in domains:
        if domain.pictures.image_shape != first:
            raise ValueError(
                f"The images of the domain {domain.name!r} are {list(domain.pictures.image_shape)}, those of "
                f"{names[0]!r} {list(first)}; one model answers both. Resize them alike."
            )
        own = domain.pictures.classes
        if domain.labels is None and own != classes:
            raise ValueError(
                f"The domain {domain.name!r} names {len(own)} classes and the stream {len(classes)}, or in another "
                "order. Give the domain a label map: Domain(..., labels=...)."
            )
        if domain.labels is not None and not 0 <= int(domain.labels.min()) <= int(domain.labels.max()) < len(classes):
            raise ValueError(
                f"The label map of {domain.name!r} leads to the classes {int(domain.labels.min())} to "
                f"{int(domain.labels.max())}, but the stream has {len(classes)}."
            )
