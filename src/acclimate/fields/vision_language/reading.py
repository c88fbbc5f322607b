"""Text and JSON that others have written, with the file's name in every complaint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["read_json", "read_text"]


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without the mark that some editors begin with. ValueError for other bytes."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}). Save it so.") from error


def read_json(path: Path) -> Any:
    """What a file holds. ValueError for no JSON, and for a key that stands twice in one object."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file ({error}). Mend it, or fetch it again.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r} twice")
    return found
