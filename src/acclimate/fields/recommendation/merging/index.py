"""What a folder of a merged model says about itself."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.core.storage import atomic_write
from acclimate.fields.recommendation.merging.how import HOW, WEIGHTED

__all__ = ["INDEX", "Index", "digest_of", "read_index", "write_index"]

INDEX = "merged.json"
_FORMAT = 2
_TYPES: Mapping[str, torch.dtype] = {
    str(each).removeprefix("torch."): each for each in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
}


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Attributes: `folder`; `how` and `weights`, as in `merge`; `members`, the SHA-256 of each file by its name."""

    folder: Path
    how: str
    weights: Tensor
    members: Mapping[str, str]

    def paths(self) -> list[Path]:
        """The members' files."""
        return [self.folder / name for name in self.members]

    def given(self) -> Tensor | None:
        """The weights, where this way takes any."""
        return self.weights if self.how in WEIGHTED else None


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_index(index: Index) -> None:
    """Put it into its folder, with a checksum of its own."""
    told = {
        "format": _FORMAT,
        "how": index.how,
        "type": str(index.weights.dtype).removeprefix("torch."),
        "weights": index.weights.double().tolist(),
        "members": [{"file": name, "sha256": digest} for name, digest in index.members.items()],
    }
    atomic_write(index.folder / INDEX, json.dumps({**told, "sha256": _checksum(told)}, indent=1).encode())


def read_index(folder: str | Path) -> Index:
    """What `write_index` wrote.

    Raises FileNotFoundError for a folder without an index, ValueError for one that is damaged, altered, or of another
    format.
    """
    folder = Path(folder).expanduser()
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"there is no {INDEX} in {folder}, expected a folder that save_merged wrote.")
    try:
        return _understood(folder, json.loads(path.read_bytes()))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        told = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} cannot be read ({told}). Save the merged model anew.") from error


def _understood(folder: Path, told: Any) -> Index:
    if not isinstance(told, dict):
        raise ValueError(f"found a {type(told).__name__}, expected an object")
    if told["format"] != _FORMAT:
        raise ValueError(f"found format {told['format']!r}, expected {_FORMAT}")
    checksum = told.pop("sha256")
    if checksum != _checksum(told):
        raise ValueError("it does not match its checksum; it was altered or damaged")
    names = [each["file"] for each in told["members"]]
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError(f"found members {names}, expected names of files in the folder")
    if told["how"] not in HOW or told["type"] not in _TYPES:
        raise ValueError(f"found {told['how']!r} of {told['type']!r}, expected one of {', '.join(HOW)} of a known type")
    weights = torch.tensor(told["weights"], dtype=torch.float64)
    whole = weights.shape == (len(names),) and bool((weights >= 0).all())
    if not whole or not math.isclose(float(weights.sum()), 1.0, abs_tol=0.02):
        raise ValueError(f"found weights {told['weights']} for {len(names)} members, expected as many, of sum 1")
    digests = {each["file"]: each["sha256"] for each in told["members"]}
    if len(digests) != len(names):
        raise ValueError("it names a file twice")
    return Index(folder, told["how"], weights.to(_TYPES[told["type"]]), digests)


def _checksum(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
