"""What holds for a stream besides its versions: by its manifest, or by its log where the manifest is lost."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acclimate.serve.audit import is_number, read_audit

__all__ = ["FORMAT", "Manifest", "manifest_of_log", "read_manifest", "read_object"]

FORMAT = 1
"""Of manifests, and of the file that tells whose a folder is."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Kept names and their versions, the number that comes next (0 where it is not told), and whether it is frozen."""

    names: dict[str, int] = field(default_factory=dict[str, int])
    next: int = 0
    frozen: bool = False


def read_manifest(path: Path) -> Manifest:
    """A stream's manifest. ValueError if it is damaged, OSError if it cannot be read."""
    found = read_object(path)
    names, following, frozen = found.get("names"), found.get("next"), found.get("frozen")
    if found.get("format") != FORMAT:
        raise ValueError(f"it has format {found.get('format')!r}, expected {FORMAT}")
    if not isinstance(names, dict) or not all(map(is_number, names.values())):
        raise ValueError("its names are no names of versions")
    if not is_number(following) or not isinstance(frozen, bool):
        raise ValueError(f"next is {following!r} and frozen {frozen!r}")
    return Manifest({str(key): value for key, value in names.items()}, following, frozen)


def manifest_of_log(folder: Path) -> Manifest | None:
    """What the verbs in a stream's log have made hold. None where there was no such verb."""
    names, frozen, verbs = dict[str, int](), False, 0
    for line in read_audit(folder):
        if line.get("event") == "keep" and isinstance(line.get("name"), str) and is_number(line.get("before")):
            names[line["name"]] = line["before"]
        elif line.get("event") == "freeze":
            frozen = line.get("frozen") is not False
        else:
            continue
        verbs += 1
    return Manifest(names, 0, frozen) if verbs else None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file. ValueError for anything else."""
    try:
        value = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds {type(value).__name__}")
    return value
