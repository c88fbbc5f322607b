"""A folder of encoded clicks, as `encoding.encode_files` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, cast

import torch

from acclimate.fields.recommendation.data.clicks import Clicks

__all__ = ["DONE", "Encoded", "read_json", "shard_file"]

DONE = "done.json"
"""Which is written last."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A folder of encoded clicks.

    Arguments:
        folder: where it is.
        rows: of each shard, in order.
        positives: how many rows are labelled 1.
    """

    folder: Path
    rows: tuple[int, ...]
    positives: int

    def __len__(self) -> int:
        """The number of rows."""
        return sum(self.rows)

    @classmethod
    def open(cls, folder: str | Path) -> Encoded:
        """What `encode_files` wrote.

        Raises:
            FileNotFoundError: no such folder, or one that was not finished.
            ValueError: what it says of itself cannot be read.
        """
        folder = Path(folder).expanduser()
        if not (folder / DONE).is_file():
            raise FileNotFoundError(
                f"{folder} holds no finished encoding; expected a file {DONE} in it. Call encode_files again: it goes "
                "on where it stopped."
            )
        found = read_json(folder / DONE)
        rows, positives = found.get("rows"), found.get("positives")
        if not isinstance(rows, list) or not rows or not all(map(_count, rows)) or not _count(positives):
            raise _damaged(folder / DONE, "no numbers of rows and clicks")
        return cls(folder, tuple(rows), positives)

    def shards(self) -> Iterator[Clicks]:
        """One shard after the other, so that no more than one need be in memory.

        Raises:
            FileNotFoundError: one is missing.
            ValueError: one is damaged, or has other rows than were written.
        """
        for number, rows in enumerate(self.rows):
            path = shard_file(self.folder, number)
            shard = Clicks.load(path)
            if len(shard) != rows:
                raise ValueError(
                    f"{path} has {len(shard)} rows, {DONE} says {rows}. Call encode_files again: it mends the folder."
                )
            yield shard

    @property
    def sound(self) -> bool:
        """Whether all shards are there and undamaged; each is read."""
        try:
            return sum(map(len, self.shards())) == len(self)
        except (FileNotFoundError, ValueError):
            return False

    def clicks(self) -> Clicks:
        """All rows: 8 bytes of memory for each id."""
        first = Clicks.load(shard_file(self.folder, 0))
        ids, labels = torch.empty(len(self), len(first.fields), dtype=torch.int64), torch.empty(len(self))
        start = 0
        for shard in self.shards():
            end = start + len(shard)
            ids[start:end], labels[start:end] = shard.ids, shard.labels
            start = end
        return Clicks(ids, labels, first.sizes, first.fields)


def read_json(path: Path) -> dict[str, Any]:
    """What a file of the folder says; ValueError for one that is no JSON object."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, type(found).__name__)
    return cast("dict[str, Any]", found)


def _damaged(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path} is damaged: found {found}, expected what encode_files writes. Remove it if the folder is of the same "
        "files, format and vocabulary, and call encode_files again: shards are kept."
    )


def _count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def shard_file(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"clicks-{number:05d}.safetensors"
