"""Streams from a specification such as `digits:continual`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acclimate.streams.dataset import Dataset
from acclimate.streams.datasets import DATASETS, load_dataset
from acclimate.streams.mixed import Domain
from acclimate.streams.mixes import mix
from acclimate.streams.potpourri import POTPOURRI, potpourri_domains
from acclimate.streams.segments import CLEAN, MIXED_SETTINGS, SETTINGS, Segment, plan_segments, suggest
from acclimate.streams.stream import DatasetStream, Stream

__all__ = ["ORDERS", "StreamSpec", "open_stream", "parse_spec", "stream_dataset"]

ORDERS = ("shuffled_fixed", "stored")
"""`shuffled_fixed`: one permutation, by the seed, for all segments. `stored`: as the subset comes."""

_BATCH_SIZES = {"digits": 100, "folder": 64, "imagenetc": 64}
_CIFAR_BATCH = 200
_SIZES = {"imagenetc": 5000}
"""Images of each corruption where the published protocol takes fewer than there are."""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """The parts of `DATASET[:DIR][:SETTING]`."""

    dataset: str
    folder: str | None
    setting: str


def _refuse_word(spec: str, word: str) -> ValueError:
    return ValueError(
        f"In {spec!r}, {word!r} is neither a setting nor an existing folder. {suggest(word, SETTINGS)} "
        "The grammar is DATASET[:DIR][:SETTING], as in cifar10:continual or folder:/data/photos:clean."
    )


def parse_spec(spec: str) -> StreamSpec:
    """Take a stream specification apart; `SETTING` defaults to `continual`, of a potpourri to itself.

    The last part is the setting where it is the name of one, and belongs to the folder otherwise.

    Raises:
        ValueError: an unknown data set or setting; the message lists the close ones and all there are.

    >>> parse_spec("folder:/data/photos:clean")
    StreamSpec(dataset='folder', folder='/data/photos', setting='clean')
    """
    dataset, _, rest = spec.strip().partition(":")
    known = (*DATASETS, *POTPOURRI)
    if dataset not in known:
        raise ValueError(f"There is no data set {dataset!r} (in {spec!r}). {suggest(dataset, known)}")
    usual = dataset if dataset in POTPOURRI else "continual"
    head, colon, last = rest.rpartition(":")
    if last in SETTINGS:
        return StreamSpec(dataset, head or None, last)
    if not rest:
        return StreamSpec(dataset, None, usual)
    if Path(rest).expanduser().is_dir():
        return StreamSpec(dataset, rest, usual)
    if colon and not {"/", "\\"} & set(last):
        raise _refuse_word(spec, last)
    if not colon and not {"/", "\\", "."} & set(last):
        raise _refuse_word(spec, last)
    return StreamSpec(dataset, rest, usual)


def _order(available: int, size: int | None, order: str, seed: int) -> Tensor:
    subset = np.arange(available) if size is None else np.random.default_rng(0).permutation(available)[:size]
    if order == "shuffled_fixed":
        subset = subset[np.random.default_rng(seed).permutation(len(subset))]
    return torch.from_numpy(subset)


def stream_dataset(
    dataset: Dataset,
    setting: str = "continual",
    *,
    size: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    severity: int = 5,
    order: str = "shuffled_fixed",
    corruptions: Sequence[str] | None = None,
    concentration: float | None = None,
    source_share: float | None = None,
    held_out: float | None = None,
) -> Stream:
    """Any data set as a stream; the arguments are those of `open_stream`.

    >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    >>> mine = Dataset("black", images, torch.tensor([0, 1]), ("night", "ink"))
    >>> len(stream_dataset(mine, "clean"))
    1
    """
    segments = plan_segments(setting, severity=severity, corruptions=corruptions)
    if dataset.blocks is not None:
        for segment in segments:
            dataset.read(torch.zeros(1, dtype=torch.int64), segment)
    if size is None and len(dataset) > _SIZES.get(dataset.name, len(dataset)):
        size = _SIZES[dataset.name]
    if order not in ORDERS:
        raise ValueError(f"There is no order {order!r}. {suggest(order, ORDERS)}")
    if size is not None and not 1 <= size <= len(dataset):
        raise ValueError(f"size is {size}; expected 1 to {len(dataset)}, the images of {dataset.name!r}.")
    if batch_size is None:
        batch_size = _BATCH_SIZES.get(dataset.name, _CIFAR_BATCH)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more.")
    if setting in MIXED_SETTINGS:
        if order != ORDERS[0]:
            raise ValueError(f"order={order!r} is of streams with one domain at a time; {setting!r} orders its images.")
        return mix(
            _domains(dataset, setting, segments),
            setting,
            size=size,
            batch_size=batch_size,
            seed=seed,
            concentration=concentration,
            source_share=source_share,
            held_out=held_out,
            name=f"{dataset.name}:{setting}",
        )
    for option, value in (("concentration", concentration), ("source_share", source_share), ("held_out", held_out)):
        if value is not None:
            raise ValueError(f"{option}={value} is of streams in which domains mix, not of {setting!r}; leave it out.")
    return DatasetStream(
        f"{dataset.name}:{setting}",
        dataset,
        order=_order(len(dataset), size, order, seed),
        segments=segments,
        batch_size=batch_size,
        corruption_seed=seed,
        choices={
            "setting": setting,
            "subset": "all" if size is None else "numpy.random.default_rng(0).permutation(available)[:size]",
            "order": order,
            "seed": seed,
        },
    )


def _domains(dataset: Dataset, setting: str, shifts: Sequence[Segment]) -> list[Domain]:
    """A data set's domains: one for each shift, and the pictures as they are where source images are part of it."""
    domains = [Domain(shift.name, dataset, shift) for shift in shifts]
    if setting != "potpourri+":
        return domains
    if dataset.blocks is not None:
        raise ValueError(
            f"{dataset.name!r} is stored corrupted and has no clean images, which 'potpourri+' mixes in. Take "
            "'potpourri', or bring them along from Python: mix([...])."
        )
    return [*domains, Domain(CLEAN.name, dataset, is_source=True)]


def _potpourri(parts: StreamSpec, folder: str | Path | None, shifts: Sequence[Segment], **options: Any) -> Stream:
    if folder is None:
        raise ValueError(
            f"{parts.dataset!r} needs a folder that holds imagenet-c, imagenet-r, imagenet-a and imagenet-sketch: "
            f"{parts.dataset}:DIR. Small data sets have it as a setting: digits:{parts.dataset}."
        )
    if parts.setting not in MIXED_SETTINGS or (parts.setting in POTPOURRI and parts.setting != parts.dataset):
        raise ValueError(
            f"{parts.dataset!r} takes no setting {parts.setting!r}. {suggest(parts.setting, MIXED_SETTINGS)}"
        )
    found = potpourri_domains(Path(folder).expanduser(), shifts, source=parts.dataset == "potpourri+")
    name = parts.dataset if parts.setting == parts.dataset else f"{parts.dataset}:{parts.setting}"
    return mix(found.domains, parts.setting, classes=found.classes, name=name, published=found.published, **options)


def open_stream(
    spec: str,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    severity: int = 5,
    order: str = "shuffled_fixed",
    corruptions: Sequence[str] | None = None,
    split: str = "test",
    data: str | Path | None = None,
    concentration: float | None = None,
    source_share: float | None = None,
    held_out: float | None = None,
) -> Stream:
    """A stream by name.

    Arguments:
        spec: `DATASET[:DIR][:SETTING]`; see `load_dataset` for the data sets, `potpourri_domains` for `potpourri:DIR`
            and `potpourri+:DIR`, and `plan_segments` and `mix` for the settings, of which `continual` is the default.
        size: take only this many images: `numpy.random.default_rng(0).permutation(N)[:size]` of the split. By
            default all of them; of ImageNet-C 5,000, as the published protocol takes.
        batch_size: images in a batch; by default 100 for digits, 64 for image folders and ImageNet-C, 200 otherwise.
        seed: of the order and of the random corruptions.
        severity: 1 to 5, of the setting `continual` and of mixed ones.
        order: `shuffled_fixed` (one permutation for all segments) or `stored`.
        corruptions: names to use instead of the standard fifteen.
        split: `train` or `test`.
        data: another way to name `DIR`.
        concentration: of `correlated`, see `mix`.
        source_share: of `potpourri+`, see `mix`.
        held_out: of `potpourri+`, see `mix`.

    Raises:
        ValueError: a name or number that does not exist; the message says which do.
        FileNotFoundError: the data is not there; the message says what to do.

    >>> stream = open_stream("digits:clean", size=250)
    >>> [len(batch.labels) for batch in stream]
    [100, 100, 50]
    """
    parts = parse_spec(spec)
    shifts = plan_segments(parts.setting, severity=severity, corruptions=corruptions)
    if parts.dataset in POTPOURRI:
        if split != "test":
            raise ValueError(f"{parts.dataset!r} has only the split 'test', got {split!r}.")
        if parts.folder and data is not None:
            raise ValueError(
                f"The folder is given twice: {parts.folder!r} in the name, and data={str(data)!r}. Drop one."
            )
        return _potpourri(
            parts,
            parts.folder or data,
            shifts,
            size=size,
            batch_size=_BATCH_SIZES["imagenetc"] if batch_size is None else batch_size,
            seed=seed,
            concentration=concentration,
            source_share=source_share,
            held_out=held_out,
        )
    name = f"{parts.dataset}:{parts.folder}" if parts.folder else parts.dataset
    dataset = load_dataset(name, split, data=data)
    return stream_dataset(
        dataset,
        parts.setting,
        size=size,
        batch_size=batch_size,
        seed=seed,
        severity=severity,
        order=order,
        corruptions=corruptions,
        concentration=concentration,
        source_share=source_share,
        held_out=held_out,
    )
