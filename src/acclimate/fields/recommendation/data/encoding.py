"""Files of any length, encoded block by block into a folder of shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acclimate.core.storage import atomic_write
from acclimate.fields.recommendation.data.blocks import BLOCK
from acclimate.fields.recommendation.data.clicks import Clicks
from acclimate.fields.recommendation.data.reading import Format, Progress, parsers_of
from acclimate.fields.recommendation.data.vocabulary import FieldVocabulary

__all__ = ["Encoded", "encode_files"]

_PLAN, _DONE = "plan.json", "done.json"


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
        """
        folder = Path(folder).expanduser()
        if not (folder / _DONE).is_file():
            raise FileNotFoundError(
                f"{folder} holds no finished encoding; expected a file {_DONE} in it. Call encode_files again: it goes "
                "on where it stopped."
            )
        found = json.loads((folder / _DONE).read_text())
        return cls(folder, tuple(found["rows"]), found["positives"])

    def shards(self) -> Iterator[Clicks]:
        """One shard after the other, so that no more than one need be in memory."""
        for number in range(len(self.rows)):
            yield Clicks.load(_shard(self.folder, number))

    def clicks(self) -> Clicks:
        """All rows: 8 bytes of memory for each id."""
        first = Clicks.load(_shard(self.folder, 0))
        ids, labels = torch.empty(len(self), len(first.fields), dtype=torch.int64), torch.empty(len(self))
        start = 0
        for shard in self.shards():
            end = start + len(shard)
            ids[start:end], labels[start:end] = shard.ids, shard.labels
            start = end
        return Clicks(ids, labels, first.sizes, first.fields)


def encode_files(
    paths: Sequence[str | Path],
    layout: Format,
    vocabulary: FieldVocabulary,
    folder: str | Path,
    *,
    size: int = BLOCK,
    progress: Progress | None = None,
) -> Encoded:
    """Encode files into a folder, a shard for each block of text, without holding more than a block in memory.

    A run that was stopped goes on with the first shard that is missing: each is written whole or not at all, and what
    has been done is read past but not parsed again. A finished folder is returned as it is.

    Arguments:
        paths: the files, in order.
        layout: of all of them.
        vocabulary: gives the ids.
        folder: to write to; it is made where it is missing.
        size: bytes of text of a shard.
        progress: told how many bytes of the files are done and how many there are.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a bad row (see `reading.read`), labels that are all equal, or a folder that holds another encoding.
    """
    target = Path(folder).expanduser()
    _agree(target, _plan(paths, layout, vocabulary, size))
    if (target / _DONE).is_file():
        return Encoded.open(target)
    rows: list[int] = []
    positives = 0
    for number, (block, parse) in enumerate(parsers_of(paths, layout, size=size, progress=progress)):
        path = _shard(target, number)
        if path.is_file():
            clicks = Clicks.load(path)
        else:
            clicks = vocabulary.encode(parse(block))
            clicks.save(path)
        rows.append(len(clicks))
        positives += int(clicks.labels.sum())
    if positives in (0, sum(rows)):
        raise ValueError(
            f"{', '.join(map(str, paths))}: all {sum(rows)} labels (column {layout.label}) are {int(positives > 0)}; "
            "expected both 0 and 1. Choose files with clicks and without."
        )
    atomic_write(target / _DONE, json.dumps({"rows": rows, "positives": positives}).encode())
    return Encoded(target, tuple(rows), positives)


def _plan(paths: Sequence[str | Path], layout: Format, vocabulary: FieldVocabulary, size: int) -> dict[str, Any]:
    files = [Path(path).expanduser() for path in paths]
    return {
        "files": [[path.name, path.stat().st_size if path.is_file() else 0] for path in files],
        "format": layout.name,
        "vocabulary": vocabulary.fingerprint(),
        "bytes": size,
    }


def _agree(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or ValueError if the folder was begun by another."""
    path = folder / _PLAN
    if path.is_file():
        found = json.loads(path.read_text())
        differs = [name for name in plan if found.get(name) != plan[name]]
        if differs:
            raise ValueError(
                f"{folder} holds an encoding with another {', '.join(differs)}; expected the same, to go on with it. "
                "Choose another folder, or empty this one."
            )
    else:
        atomic_write(path, json.dumps(plan).encode())


def _shard(folder: Path, number: int) -> Path:
    return folder / f"clicks-{number:05d}.safetensors"
