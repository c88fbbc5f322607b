"""Clicks: one row of category ids for each time something was shown, and whether it was clicked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.models.files import read_tensors, write_tensors

__all__ = ["Clicks", "joined"]

_SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False, slots=True)
class Clicks:
    """Rows of one id per field, with labels.

    Ids are global: the offset of the field (the sum of the sizes before it) plus the number within the field. So one
    embedding table of `vocabulary` rows serves all fields.

    Arguments:
        ids: int64 `[N, F]`; column `f` lies in `offsets[f]..offsets[f] + sizes[f] - 1`.
        labels: float32 `[N]`, 1 where it was clicked, else 0.
        sizes: how many ids each field has, 1 or more, its out-of-vocabulary id (the last) among them: `[F]`.
        fields: their names, all different: `[F]`.

    Raises:
        ValueError: parts that do not fit each other; the message names row (from 0) and field.

    >>> clicks = Clicks(torch.tensor([[0, 3], [2, 4]]), torch.tensor([0.0, 1.0]), (3, 2), ("user", "item"))
    >>> len(clicks), clicks.vocabulary, clicks.offsets
    (2, 5, (0, 3))
    """

    ids: Tensor
    labels: Tensor
    sizes: tuple[int, ...]
    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_fields(self.sizes, self.fields)
        _check_ids(self)
        _check_labels(self.labels, len(self.ids))

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.ids)

    @property
    def vocabulary(self) -> int:
        """Ids of all fields together."""
        return sum(self.sizes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """The first id of each field."""
        return (0, *accumulate(self.sizes[:-1]))

    def take(self, index: Tensor) -> Clicks:
        """The rows at these places, in this order: int64 `[M]` or bool `[N]`."""
        return replace(self, ids=self.ids[index], labels=self.labels[index])

    def fingerprint(self) -> str:
        """SHA-256 of fields, sizes, ids and labels."""
        digest = hashlib.sha256(repr((self.fields, self.sizes, tuple(self.ids.shape))).encode())
        for tensor in (self.ids, self.labels):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write them to a `.safetensors` file, whole or not at all; ids take 4 bytes each where they fit.

        Raises:
            ValueError: another suffix.
        """
        path = _named(path)
        small = self.vocabulary <= torch.iinfo(torch.int32).max
        tensors = {"ids": self.ids.to(torch.int32) if small else self.ids, "labels": self.labels.to(torch.uint8)}
        write_tensors(path, tensors, {"clicks": json.dumps([list(self.fields), list(self.sizes)])})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another suffix, a damaged file, or one with something else in it.
        """
        tensors, header = read_tensors(_named(path))
        if "clicks" not in header or tensors.keys() != {"ids", "labels"}:
            raise ValueError(
                f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}; expected what Clicks.save writes."
            )
        fields, sizes = json.loads(header["clicks"])
        return cls(tensors["ids"].to(torch.int64), tensors["labels"].to(torch.float32), tuple(sizes), tuple(fields))


def joined(parts: Sequence[Clicks]) -> Clicks:
    """The rows of all parts, one after the other.

    Raises:
        ValueError: no parts, or parts of different fields or sizes.
    """
    if not parts:
        raise ValueError("There are no clicks to join; expected one part or more.")
    first = parts[0]
    for part in parts:
        if (part.fields, part.sizes) != (first.fields, first.sizes):
            raise ValueError(
                f"Clicks of the fields {part.fields} with sizes {part.sizes} cannot follow those of {first.fields} "
                f"with {first.sizes}. Encode both by one vocabulary."
            )
    ids, labels = torch.cat([part.ids for part in parts]), torch.cat([part.labels for part in parts])
    return replace(first, ids=ids, labels=labels)


def _named(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if path.suffix != _SUFFIX:
        raise ValueError(f"{path} ends in {path.suffix!r}; clicks are kept in files that end in {_SUFFIX!r}.")
    return path


def _check_fields(sizes: tuple[int, ...], fields: tuple[str, ...]) -> None:
    if not fields or len(sizes) != len(fields):
        raise ValueError(f"There are {len(fields)} fields and {len(sizes)} sizes; expected one size for each field.")
    twice = sorted({name for name in fields if fields.count(name) > 1})
    if twice:
        raise ValueError(f"Several fields are called {', '.join(twice)}; expected names that differ.")
    for name, size in zip(fields, sizes, strict=True):
        whole(1, **{f"The size of field {name}": size})


def _check_ids(clicks: Clicks) -> None:
    ids, count = clicks.ids, len(clicks.fields)
    if ids.dtype != torch.int64 or ids.ndim != 2 or ids.shape[1] != count:
        raise ValueError(f"ids are {ids.dtype} {list(ids.shape)}; expected torch.int64 [N, {count}].")
    if not len(ids):
        return
    low, high = ids.amin(0).tolist(), ids.amax(0).tolist()
    for place, (name, start, size) in enumerate(zip(clicks.fields, clicks.offsets, clicks.sizes, strict=True)):
        end = start + size
        if low[place] < start or high[place] >= end:
            row = int(((ids[:, place] < start) | (ids[:, place] >= end)).nonzero()[0])
            raise ValueError(
                f"Row {row}, field {name}: found id {int(ids[row, place])}; expected {start} to {end - 1}. Ids are "
                "global: add the field's offset to the number within it."
            )


def _check_labels(labels: Tensor, count: int) -> None:
    if labels.dtype != torch.float32 or labels.shape != (count,):
        raise ValueError(f"labels are {labels.dtype} {list(labels.shape)}; expected torch.float32 [{count}].")
    odd = (labels != 0) & (labels != 1)  # true of NaN, too
    if bool(odd.any()):
        row = int(odd.nonzero()[0])
        raise ValueError(f"Row {row} has the label {float(labels[row])}; expected 0 or 1.")
