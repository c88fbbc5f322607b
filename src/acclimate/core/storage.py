"""State files: safetensors with one JSON header, written atomically, read with suspicion."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

__all__ = ["FORMAT", "atomic_write", "fingerprint", "read_state", "write_state"]

FORMAT = 1
"""Version of the state file; older ones stay readable, newer ones are refused."""

_KEY = "acclimate"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and persistent buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a restart after a crash, sees the old one or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_state(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header as one file."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    atomic_write(path, save(plain, {_KEY: json.dumps({"format": FORMAT, **header})}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a state file. ValueError if it is damaged, foreign, or from a later version."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no state file at {path}. Write one with adapted.save(path).")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}. Restore it from a copy.") from error
    if _KEY not in metadata:
        raise ValueError(f"{path} holds tensors but no adaptation. Expected a file written by adapted.save(path).")
    try:
        header = json.loads(metadata[_KEY])
        version = int(header["format"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the header of {path} is damaged: {error}. Restore it from a copy.") from error
    if version > FORMAT:
        raise ValueError(f"{path} has format {version}, this version reads up to {FORMAT}. Update acclimate.")
    return tensors, header
