"""The folder that outlives the process: versions as state files, and a manifest for each stream."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from acclimate.core.storage import atomic_write, read_state, sync_folder, write_state
from acclimate.serve.audit import AuditLog, audit_files, last_number
from acclimate.serve.locks import Locks
from acclimate.serve.manifest import FORMAT, Manifest, manifest_of_log, read_manifest, read_object
from acclimate.serve.packed import Packed
from acclimate.serve.refused import Refused
from acclimate.serve.settings import Limits
from acclimate.serve.slots import SLOTS, slot
from acclimate.serve.stream import NAME, Stream, Version

__all__ = ["Adopt", "Restored", "Store", "version_file"]

_log = logging.getLogger(__name__)

_SERVER, _MANIFEST = "server.json", "manifest.json"
_VERSION = re.compile(r"v(\d{12})\.safetensors")
_DRAFT = re.compile(r"\.(v\d{12}\.safetensors|manifest\.json|server\.json)\.[0-9a-f]{16}")

Adopt = Callable[[Mapping[str, Tensor], Mapping[str, Any]], Packed]
"""Makes a state of what a file holds. ValueError if it does not fit."""


@dataclass(slots=True)
class Restored:
    """What is left of a stream. `current` is None where no file of a version is readable."""

    name: str
    current: Version | None
    next: int
    stored: set[int]
    frozen: bool = False
    names: dict[str, int] = field(default_factory=dict[str, int])
    note: str | None = None
    damaged: int = 0

    def give(self, stream: Stream) -> None:
        """Let a stream go on from here."""
        stream.next, stream.frozen, stream.note, stream.stored = self.next, self.frozen, self.note, self.stored
        stream.names = self.names
        source = {0: stream.kept[0]} if 0 in self.names.values() else {}
        stream.current = self.current or stream.current
        stream.kept = {**source, stream.current.number: stream.current}
        stream.log("open", version=stream.current.number, state=stream.current.state.digest(), note=self.note)


class Store:
    """Keeps versions in a folder, of the streams whose slots it holds.

    Arguments: `folder`, made if it does not exist; `identity`, what every state in it must have in common with this
    server; `slots`, those that nobody else may have until `close`. Raises ValueError if the folder belongs to another
    model or method, or one of the slots to a server that runs.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], limits: Limits, slots: Iterable[int] = range(SLOTS)
    ) -> None:
        self._folder, self._identity, self._limits = folder, dict(identity), limits
        self._locks = Locks(folder)
        self._vouched = False
        if not self._locks.take(slots):
            raise ValueError(
                f"{folder} belongs to a server that runs. Stop that one, or give this one another --state-dir."
            )
        try:
            with FileLock(folder / "lock"):  # of several that find no file only one writes it
                self._recognise()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others have the slots."""
        self._locks.close()

    @contextmanager
    def holding(self, name: str, seconds: float) -> Iterator[None]:
        """Have one stream to oneself for a while, whose slot is not held. Refused where another has it for longer."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._locks.holding(slot(name), seconds))
            except TimeoutError as error:
                raise Refused(
                    503,
                    found=f"stream {name}, which another worker has had for {seconds:g} seconds.",
                    expected="one that is free",
                    do="Try again; where a server runs over the same folder, ask that one.",
                    retry_after=1,
                ) from error
            yield

    def _recognise(self) -> None:
        path = self._folder / _SERVER
        if not path.exists():
            atomic_write(path, _json({"format": FORMAT, "identity": self._identity}))
            return
        try:
            found = read_object(path)
        except (OSError, ValueError) as error:
            found = {"format": str(error)}
        version, known = found.get("format"), found.get("identity")
        if isinstance(version, int) and version > FORMAT:
            raise ValueError(f"{path} has format {version}, this version reads up to {FORMAT}. Update acclimate.")
        if version != FORMAT or not isinstance(known, dict):
            raise ValueError(f"{path} is damaged ({version}). Restore it from a copy, or give another --state-dir.")
        self._same(known, str(self._folder))
        self._vouched = True

    def _same(self, found: Mapping[str, Any], where: str) -> None:
        for key, expected in self._identity.items():
            there = found.get(key)
            if there != json.loads(json.dumps(expected)):
                what = {"base": "another source model", "method": "another method"}.get(key, f"another {key}")
                raise ValueError(
                    f"{where} belongs to {what}: found {_short(there)}, expected {_short(expected)}. Start the server "
                    "with what it was made with, or give it another --state-dir."
                )

    def folder(self, name: str) -> Path:
        """Where a stream's files are."""
        return self._folder / "streams" / name

    def log(self, name: str) -> AuditLog:
        """A stream's audit log. Refused for a stream of another worker."""
        if slot(name) not in self._locks.held:
            raise Refused(
                421,
                found=f"stream {name}, which belongs to another worker.",
                expected="a request that came through the front",
                do="Ask the address that acclimate serve listens at.",
            )
        return AuditLog(self.folder(name), self._limits)

    # -- reading ---------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Every stream of the slots held that has files here. Folders that no stream can have are left alone."""
        top = self._folder / "streams"
        found = [path.name for path in top.iterdir() if path.is_dir()] if top.is_dir() else []
        return sorted(name for name in found if re.fullmatch(NAME, name) and slot(name) in self._locks.held)

    def count(self) -> int:
        """Streams that have files here, whoever holds them."""
        top = self._folder / "streams"
        return sum(1 for _ in top.iterdir()) if top.is_dir() else 0

    def load(self, name: str, adopt: Adopt) -> Restored:
        """The last version that was written, or the last readable one before it. ValueError for another model's."""
        folder = self.folder(name)
        for path in folder.iterdir():
            if _DRAFT.fullmatch(path.name):
                path.unlink()
        numbers = sorted(_numbers(folder), reverse=True)
        found = Restored(name, None, max([last_number(folder), *numbers]) + 1, set(numbers))
        whole = self._read_manifest(folder, found)
        for number in numbers:
            try:
                found.current = Version(number, self._read(name, number, adopt))
                break
            except _Damaged as damage:
                self._pass_over(found, number, str(damage))
        if numbers and found.current is None:
            found.note = "no version of this stream is readable; it starts from the source"
        if not whole and found.current is not None:  # what would go next must have had names
            spare = self._spare(found.stored, found.current.number, found.names.values())
            found.names = {f"recovered-{number}": number for number in spare} | found.names
        return found

    def _pass_over(self, found: Restored, number: int, why: str) -> None:
        found.damaged += 1
        found.stored.discard(number)
        found.note = f"version {number} is damaged; an earlier one is used"
        _log.error("version %d of stream %s is passed over: %s", number, found.name, why)

    def _read_manifest(self, folder: Path, found: Restored) -> bool:
        """Take over what it says, or what the log says in its place. Whether it was whole."""
        try:
            manifest = read_manifest(folder / _MANIFEST)
        except FileNotFoundError:
            manifest = manifest_of_log(folder)
            if manifest is not None:
                found.note = "the manifest is missing: names, and whether the stream is frozen, are those of its log"
        except (OSError, ValueError) as error:
            manifest = replace(manifest_of_log(folder) or Manifest(), frozen=True)
            found.note = "the manifest is damaged: names are those of its log, and it is frozen until told otherwise"
            _log.error("the manifest of stream %s is damaged: %s", found.name, error)
        found.damaged += found.note is not None
        if manifest is not None:
            found.names = {key: value for key, value in manifest.names.items() if value in {0, *found.stored}}
            found.next, found.frozen = max(found.next, manifest.next), manifest.frozen
        return manifest is not None and found.note is None

    def mark(self, name: str) -> tuple[bytes, int]:
        """Another one after whatever happens to a stream: its manifest, and the size of its log."""
        manifest, logs = self.folder(name) / _MANIFEST, audit_files(self.folder(name))
        return manifest.read_bytes() if manifest.exists() else b"", logs[-1].stat().st_size if logs else 0

    def fetch(self, name: str, number: int, adopt: Adopt) -> Packed:
        """A version's state. ValueError if it is damaged."""
        return self._read(name, number, adopt)

    def _read(self, name: str, number: int, adopt: Adopt) -> Packed:
        path = version_file(self.folder(name), number)
        try:
            tensors, header = read_state(path)
        except (ValueError, OSError) as error:
            raise _Damaged(str(error)) from error
        if header.get("stream") != name or header.get("version") != number:
            raise _Damaged(f"{path} holds version {header.get('version')} of {header.get('stream')!r}.")
        if lacking := self._identity.keys() - header.keys():
            raise _Damaged(f"{path} does not tell its {', '.join(sorted(lacking))}.")
        try:
            self._same(header, str(path))
        except ValueError as error:
            if self._vouched:  # the folder is this server's, one file in it is not
                raise _Damaged(str(error)) from error
            raise
        try:
            return adopt(tensors, header["scalars"])
        except Exception as error:  # whatever an unforeseen header makes of the reading
            raise _Damaged(f"{path} does not fit: {type(error).__name__} {error}") from error

    # -- writing ---------------------------------------------------------------------------------------

    def save(self, stream: Stream) -> None:
        """Write what is not written yet, then the manifest; then remove what is not kept any more."""
        with stream.writing:
            with stream.lock:
                if stream.gone:
                    return
                current, unwritten = stream.current, stream.unwritten
                wanted = {current.number: current}
                wanted |= {number: stream.kept[number] for number in stream.names.values() if number in stream.kept}
                names = dict(stream.names)
                manifest = {"format": FORMAT, "stream": stream.name, "current": current.number, "next": stream.next}
                manifest |= {"frozen": stream.frozen, "names": names}
                stored = set(stream.stored)
            folder = self.folder(stream.name)
            for number, version in sorted(wanted.items()):
                if number and number not in stored:  # version 0 is the source
                    self._write(version_file(folder, number), stream.name, version)
                    stored.add(number)
            atomic_write(folder / _MANIFEST, _json(manifest))
            for number in self._spare(stored, current.number, names.values()):
                version_file(folder, number).unlink(missing_ok=True)
                stored.discard(number)
            with stream.lock:
                stream.stored = stored
                stream.unwritten -= unwritten

    def _write(self, path: Path, name: str, version: Version) -> None:
        header = {
            **self._identity,
            "scalars": version.state.numbers(),
            "torch": torch.__version__,
            "stream": name,
            "version": version.number,
        }
        write_state(path, version.state.tensors(), header)

    def _spare(self, stored: set[int], current: int, named: Iterable[int]) -> list[int]:
        loose = sorted(stored - {current} - set(named))
        return loose[: max(0, len(loose) + 1 - self._limits.kept)]

    def drop(self, stream: Stream) -> None:
        """Remove the files of a stream that has ended, once; others in its folder stay."""
        with stream.writing:
            if stream.dropped:
                return
            folder = self.folder(stream.name)
            ours = [version_file(folder, number) for number in _numbers(folder)]
            for path in (*ours, folder / _MANIFEST, *audit_files(folder)):
                path.unlink(missing_ok=True)
            if folder.is_dir():
                sync_folder(folder)
                if not any(folder.iterdir()):
                    folder.rmdir()
                    sync_folder(folder.parent)
            stream.dropped = True


class _Damaged(ValueError):
    """A file that is passed over."""


def version_file(folder: Path, number: int) -> Path:
    """Where a stream's folder has a version."""
    return folder / f"v{number:012d}.safetensors"


def _numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(found[1]) for path in folder.iterdir() if (found := _VERSION.fullmatch(path.name))]


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
