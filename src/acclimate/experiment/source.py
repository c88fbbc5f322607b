"""Images of the source for methods that measure it before they adapt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from acclimate.core.config import Configured
from acclimate.core.method import Method
from acclimate.streams import Dataset, Stream, load_dataset
from acclimate.streams.opening import parse_spec

__all__ = ["SourceImages", "asks_for_source", "training_split"]

_P = TypeVar("_P", bound=Configured)
_TRAINED_ON = {"cifar10c": "cifar10"}
_NO_SPLIT = {
    "cifar100c": "--source-data cifar100:DIR, the CIFAR-100 binary version",
    "folder": "--source-data folder:DIR, with the same classes",
}


def asks_for_source(method: Method) -> bool:
    """Whether this method, or its normalisation, measures the source first and has been given no images for it."""
    return bool(_lacking(method))


def _lacking(part: Configured) -> list[Configured]:
    """What lacks images of the source: the method, or something in its settings."""
    if isinstance(part, Method):
        own = "source images" in type(part).card.needs and getattr(part, "source", 0) is None
    else:
        own = bool(getattr(part, "lacks_source", False))
    return [*([part] if own else []), *(each for _, inner in _inner(part) for each in _lacking(inner))]


def _inner(part: Configured) -> list[tuple[str, Configured]]:
    values = [(field.name, getattr(part, field.name)) for field in fields(part)]
    return [(name, value) for name, value in values if isinstance(value, Configured)]


def _filled(part: _P, source: tuple[Tensor, Tensor]) -> _P:
    """The same settings with images wherever some are lacking."""
    if not _lacking(part):
        return part
    changes: dict[str, Any] = {name: _filled(inner, source) for name, inner in _inner(part)}
    if any(each is part for each in _lacking(part)):
        changes["source"] = source
    return replace(part, **changes)


def training_split(spec: str, data: str | None = None) -> Dataset:
    """The training images that belong to the data set of a stream.

    Raises:
        ValueError: it has none; the message says what to name instead.
        FileNotFoundError: the data is not there.
    """
    parts = parse_spec(spec)
    if parts.dataset in _NO_SPLIT:
        raise ValueError(
            f"The data set {parts.dataset!r} has no training split to take them from: name one with "
            f"{_NO_SPLIT[parts.dataset]}."
        )
    if parts.dataset in _TRAINED_ON:
        return load_dataset(_TRAINED_ON[parts.dataset], "train")
    folder = f":{parts.folder}" if parts.folder else ""
    return load_dataset(f"{parts.dataset}{folder}", "train", data=data)


@dataclass(frozen=True, kw_only=True)
class SourceImages:
    """Clean labelled images, drawn by the seed of a run, for each method that asks for them.

    Arguments:
        dataset: where they come from: the training split of what the source model was trained on.
        count: how many, or all where there are fewer.

    If the stream comes from the same split, images that it neither shows nor holds out are taken first; how many of
    the others were taken is in the record.
    """

    dataset: Dataset
    count: int = 2000

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"source images are {self.count}; expected at least 1.")

    def given(self, method: Method, seed: int, stream: Stream) -> Method:
        """The method with its source images, if it asks for them; itself otherwise."""
        if not asks_for_source(method):
            return method
        index, _ = self._draw(seed, stream)
        images = self.dataset.read(index).to(torch.float32).div_(255)
        return _filled(method, (images, self.dataset.labels[index]))

    def protocol(self, streams: Mapping[int, Stream]) -> dict[str, Any]:
        """What was drawn, ready for JSON. No path of this machine is in it."""
        inside: dict[str, int] = {}
        fingerprints: dict[str, str] = {}
        for seed, stream in streams.items():
            index, inside[str(seed)] = self._draw(seed, stream)
            digest = hashlib.sha256(index.numpy().tobytes())
            digest.update(self.dataset.labels[index].numpy().tobytes())
            for piece in self.dataset.source(index):
                digest.update(piece)
            fingerprints[str(seed)] = digest.hexdigest()
        return {
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "images": min(self.count, len(self.dataset)),
            "available": len(self.dataset),
            "draw": "numpy.random.default_rng([seed, 1]).permutation(available), images of the stream last",
            "in_stream": inside,
            "fingerprints": fingerprints,
        }

    def _draw(self, seed: int, stream: Stream) -> tuple[Tensor, int]:
        """Positions of the images, and how many of them the stream shows or holds out."""
        mine, theirs = self.dataset, stream
        if (theirs.classes and theirs.classes != mine.classes) or theirs.image_shape != mine.image_shape:
            raise ValueError(
                f"the source images ({mine.name!r}, {len(mine.classes)} classes, {list(mine.image_shape)}) do not "
                f"belong to the stream ({theirs.name!r}, {len(theirs.classes)} classes, {list(theirs.image_shape)}). "
                "Take the training images of the stream's own classes and size."
            )
        order = np.random.default_rng([seed, 1]).permutation(len(mine))
        seen = np.zeros(len(mine), dtype=bool)
        seen[stream.positions(mine.name, mine.split).numpy()] = True
        order = np.concatenate([order[~seen[order]], order[seen[order]]])[: self.count]
        return torch.from_numpy(order), int(seen[order].sum())
