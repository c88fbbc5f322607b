"""Files of any length, encoded block by block into a folder of shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acclimate.core.storage import atomic_write
from acclimate.fields.recommendation.data.blocks import BLOCK
from acclimate.fields.recommendation.data.clicks import Clicks
from acclimate.fields.recommendation.data.encoded import DONE, Encoded, read_json, shard_file
from acclimate.fields.recommendation.data.formats import layout_of
from acclimate.fields.recommendation.data.reading import Format, Progress, parsers_of
from acclimate.fields.recommendation.data.vocabulary import FieldVocabulary

__all__ = ["Encoded", "encode_files"]

_PLAN = "plan.json"


def encode_files(
    paths: Sequence[str | Path],
    layout: Format | str,
    vocabulary: FieldVocabulary,
    folder: str | Path,
    *,
    size: int = BLOCK,
    progress: Progress | None = None,
) -> Encoded:
    """Encode files into a folder, a shard for each block of text, without holding more than a block in memory.

    A run that was stopped goes on with the first shard that is missing: each is written whole or not at all, and what
    has been done is read past but not parsed again. A finished folder is returned as it is, unless a shard is missing
    or damaged, which is then encoded anew. Files are known again by the SHA-256 of all their bytes, so one that changed
    is another, whatever its name and size.

    Arguments:
        paths: the files, in order.
        layout: of all of them, or its name in `formats.FORMATS`.
        vocabulary: gives the ids.
        folder: to write to; it is made where it is missing.
        size: bytes of text of a shard.
        progress: told how many bytes of the files are done and how many there are.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a bad row (see `reading.read`), labels that are all equal, or a folder that holds another encoding
            or whose plan cannot be read.
    """
    layout = layout_of(layout)
    target = Path(folder).expanduser()
    _agree(target, _plan(paths, layout, vocabulary, size))
    if (target / DONE).is_file() and (finished := Encoded.open(target)).sound:
        return finished
    rows: list[int] = []
    positives = 0
    for number, (block, parse) in enumerate(parsers_of(paths, layout, size=size, progress=progress)):
        path = shard_file(target, number)
        clicks = _kept(path)
        if clicks is None:
            clicks = vocabulary.encode(parse(block))
            clicks.save(path)
        rows.append(len(clicks))
        positives += int(clicks.labels.sum())
    if positives in (0, sum(rows)):
        raise ValueError(
            f"{', '.join(map(str, paths))}: all {sum(rows)} labels (column {layout.label}) are {int(positives > 0)}; "
            "expected both 0 and 1. Choose files with clicks and without."
        )
    atomic_write(target / DONE, json.dumps({"rows": rows, "positives": positives}).encode())
    return Encoded(target, tuple(rows), positives)


def _plan(paths: Sequence[str | Path], layout: Format, vocabulary: FieldVocabulary, size: int) -> dict[str, Any]:
    files = [Path(path).expanduser() for path in paths]
    return {
        "files": [[path.name, _bytes_of(path)] for path in files],
        "format": layout.name,
        "vocabulary": vocabulary.fingerprint(),
        "bytes": size,
    }


def _agree(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or ValueError if the folder was begun by another."""
    path = folder / _PLAN
    if path.is_file():
        found = read_json(path)
        differs = [name for name in plan if found.get(name) != plan[name]]
        if differs:
            raise ValueError(
                f"{folder} holds an encoding with another {', '.join(differs)}; expected the same, to go on with it. "
                "Choose another folder, or empty this one."
            )
    else:
        atomic_write(path, json.dumps(plan).encode())


def _bytes_of(path: Path) -> str:
    """SHA-256; nothing for a file that is missing, which reading it will tell."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kept(path: Path) -> Clicks | None:
    """A shard that can be used."""
    try:
        return Clicks.load(path)
    except (FileNotFoundError, ValueError):
        return None
