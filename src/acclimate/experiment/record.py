"""The record of a run: JSON lines, flushed as they come, readable after any interruption.

| line | kind | what |
|---|---|---|
| first | `header` | `Header` and the version of the format |
| one for each method, seed and batch | `batch` | `BatchRow` |
| one where the images of a batch are not those of the segment before | `images` | positions in the data set; where \
domains mix, each image's domain; where some labels are unknown there, which |
| one at the end of each method and seed | `unit` | `UnitRow`; what has none is unfinished |
| one at each resumption | `resumed` | time and environment |
| last | `summary` | mean error of each method; missing after an interruption |
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from acclimate.core.storage import atomic_write
from acclimate.experiment.rows import BatchRow, Header, UnitRow

__all__ = ["FORMAT", "RECORD", "Record", "RecordWriter", "read_record"]

FORMAT = 1
"""Version of the record; older ones stay readable, newer ones are refused."""

RECORD = "record.jsonl"
"""The name of the record in the folder of a run."""

Unit = tuple[str, int]
R = TypeVar("R", BatchRow, UnitRow, Header)


@dataclass(kw_only=True)
class Record:
    """A record as read: what is whole in it."""

    path: Path
    header: Header
    rows: list[BatchRow] = field(default_factory=list[BatchRow])
    units: list[UnitRow] = field(default_factory=list[UnitRow])
    images: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict[tuple[int, int], tuple[int, ...]])
    domains: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict[tuple[int, int], tuple[int, ...]])
    """By seed and batch, where its images are not all of its segment: the place of each one's domain."""
    unscored: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict[tuple[int, int], tuple[int, ...]])
    """By seed and batch, where its images are of several domains: the rows without a label, if any."""
    summary: Mapping[str, Any] | None = None
    dropped: int = 0
    """Lines at the end that were not whole."""

    @property
    def finished(self) -> set[Unit]:
        """The (method, seed) pairs that went through the whole stream."""
        return {(unit.method, unit.seed) for unit in self.units}

    @cached_property
    def grouped(self) -> dict[Unit, list[BatchRow]]:
        """The rows of each (method, seed), in the order of the stream."""
        groups: dict[Unit, list[BatchRow]] = {}
        for row in sorted(self.rows, key=lambda row: row.batch):
            groups.setdefault((row.method, row.seed), []).append(row)
        return groups

    @property
    def complete(self) -> bool:
        """Whether every method went through the stream under every seed."""
        return all((method, seed) in self.finished for seed in self.header.seeds for method in self.header.methods)


class RecordWriter:
    """Appends lines to a record; each one is on its way to the disk before the next batch is answered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    @classmethod
    def create(cls, path: Path, header: Header) -> RecordWriter:
        """A new record. ValueError if there is one already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.open("x", encoding="utf-8").close()
        except FileExistsError as error:
            raise ValueError(
                f"{path} is the record of another run. Choose another folder, or continue that run with "
                f"--resume {path.parent}."
            ) from error
        writer = cls(path)
        writer.write("header", {"format": FORMAT, **_plain(header)})
        return writer

    @classmethod
    def resume(cls, record: Record) -> RecordWriter:
        """Continue a record: its finished units stay, the lines of unfinished ones go."""
        lines = [_line("header", {"format": FORMAT, **_plain(record.header)})]
        seeds = {seed for _, seed in record.finished}
        lines += [
            _line("images", _images(record, seed, batch, index))
            for (seed, batch), index in record.images.items()
            if seed in seeds
        ]
        lines += [_line("batch", row.json()) for row in record.rows if (row.method, row.seed) in record.finished]
        lines += [_line("unit", unit.json()) for unit in record.units]
        mode = record.path.stat().st_mode
        atomic_write(record.path, "".join(lines).encode())
        record.path.chmod(mode)
        return cls(record.path)

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        self._file.write(_line(kind, values))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_record(path: str | Path) -> Record:
    """Read a record, or the one in the folder of a run; lines of a later addition are skipped.

    An interrupted run is readable: a last line that is not whole is left out and counted in `dropped`.

    Raises:
        FileNotFoundError: there is no record.
        ValueError: a damaged line before the last, no header, or a format from a later version.
    """
    path = Path(path).expanduser()
    path = path / RECORD if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"There is no record at {path}. Expected the folder of a run, such as runs/NAME.")
    lines = list(_lines(path))
    if not lines or lines[0] is None or lines[0].get("kind") != "header":
        raise ValueError(f"{path} does not begin with the header of a record. Expected a file that a run wrote.")
    first = dict(lines[0])
    version = first.pop("format", None)
    if not isinstance(version, int) or version > FORMAT:
        raise ValueError(f"{path} has format {version}; this version reads up to {FORMAT}. Update acclimate.")
    first["seeds"] = tuple(first["seeds"])
    record = Record(path=path, header=_typed(Header, first, path))
    for line in lines[1:]:
        if line is None:
            record.dropped += 1
        else:
            _file(record, line)
    return record


def _file(record: Record, line: Mapping[str, Any]) -> None:
    match line.get("kind"):
        case "batch":
            record.rows.append(_typed(BatchRow, line, record.path))
        case "unit":
            record.units.append(_typed(UnitRow, line, record.path))
        case "images":
            place = line["seed"], line["batch"]
            record.images[place] = tuple(line["index"])
            for name, found in (("domains", record.domains), ("unscored", record.unscored)):
                if name in line:
                    found[place] = tuple(line[name])
        case "summary":
            record.summary = line
        case _:
            pass


def _images(record: Record, seed: int, batch: int, index: tuple[int, ...]) -> dict[str, Any]:
    line: dict[str, Any] = {"seed": seed, "batch": batch, "index": list(index)}
    for name, found in (("domains", record.domains), ("unscored", record.unscored)):
        if (seed, batch) in found:
            line[name] = list(found[seed, batch])
    return line


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Each line as a dictionary; None for a last one that is not whole."""
    text = path.read_bytes()
    pieces = text.split(b"\n")
    last = len(pieces) - 1
    for number, piece in enumerate(pieces):
        if number == last:
            if piece:
                yield None
            return
        try:
            value = json.loads(piece)
        except ValueError as error:
            if number == last - 1 and not pieces[last]:
                yield None
                return
            raise ValueError(
                f"line {number + 1} of {path} is damaged ({error}). Restore the file from a copy, or repeat the run."
            ) from error
        if not isinstance(value, dict):
            raise ValueError(f"line {number + 1} of {path} holds {type(value).__name__}, expected an object.")
        yield value


def _typed(cls: type[R], line: Mapping[str, Any], path: Path) -> R:
    names = {item.name for item in fields(cls)}
    try:
        return cls(**{name: value for name, value in line.items() if name in names})
    except TypeError as error:
        raise ValueError(f"a line of {path} lacks something: {error}. Restore the file from a copy.") from error


def _plain(header: Header) -> dict[str, Any]:
    return {item.name: getattr(header, item.name) for item in fields(header)}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _line(kind: str, values: Mapping[str, Any]) -> str:
    return json.dumps({"kind": kind, **_finite(values)}, separators=(",", ":"), allow_nan=False) + "\n"
