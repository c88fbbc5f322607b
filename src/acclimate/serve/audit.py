"""The audit log of one stream: JSON lines, appended before what they tell of shows."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from acclimate.serve.settings import Limits

__all__ = ["AuditLog", "audit_files", "is_number", "last_number", "read_audit"]

_log = logging.getLogger(__name__)

_NUMBERS = 10**12
_CURRENT = "audit.jsonl"
_OLDER = re.compile(r"audit\.(\d{6})\.jsonl")


class AuditLog:
    """Appends lines. What it has returned from survives the end of the process, not that of the machine.

    A file that has grown to `limits.audit_bytes` is put aside, and the oldest of more than `limits.audit_files` goes.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._lock = threading.Lock()
        self._whole = False

    def __call__(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        with self._lock:
            path = self._folder / _CURRENT
            self._folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size + len(data) > self._limits.audit_bytes:
                self._turn(path)
            torn = not self._whole and _torn(path)
            self._whole = False
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                _write(handle, b"\n" + data if torn else data)
            finally:
                os.close(handle)
            self._whole = True

    def _turn(self, path: Path) -> None:
        older = audit_files(self._folder)[:-1]
        last = max((int(found[1]) for each in older if (found := _OLDER.fullmatch(each.name))), default=0)
        path.replace(self._folder / f"audit.{last + 1:06d}.jsonl")
        for each in older[: max(0, len(older) + 2 - self._limits.audit_files)]:
            each.unlink()


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _torn(path: Path) -> bool:
    """Whether a file ends within a line, as after a crash."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def audit_files(folder: Path) -> list[Path]:
    """The files of a stream's log, oldest first."""
    older = sorted(path for path in folder.glob("audit.*.jsonl") if _OLDER.fullmatch(path.name))
    current = folder / _CURRENT
    return [*older, current] if current.is_file() else older


def read_audit(folder: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of a stream's log, oldest first. One that a crash has cut off is passed over."""
    for path in audit_files(folder):
        with path.open("rb") as file:
            for raw in file:
                try:
                    line = json.loads(raw)
                except (ValueError, RecursionError):
                    line = None
                if isinstance(line, dict):
                    yield line
                elif raw.strip():
                    _log.warning("a line of %s is damaged and passed over", path)


def is_number(value: object) -> TypeGuard[int]:
    """Whether a value that was read can be the number of a version: those have at most twelve digits."""
    return type(value) is int and 0 <= value < _NUMBERS


def last_number(folder: Path) -> int:
    """The highest number that a version was given; 0 for none. Numbers only grow: the last publication tells it."""
    for path in reversed(audit_files(folder)):
        for raw in reversed(path.read_bytes().splitlines()):
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict) and "state" in line and is_number(line.get("after")):
                return line["after"]
    return 0
