"""State files: safetensors with one JSON header, written atomically, read with suspicion."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

__all__ = ["FORMAT", "atomic_write", "fingerprint", "read_state", "sync_folder", "write_state"]

FORMAT = 2
"""Version of the state file; older ones stay readable, newer ones are refused. Since 2 the digest is of the header,
too."""

_KEY = "acclimate"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and persistent buffers."""
    return _digest(model.state_dict())


def _digest(values: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(values.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:  # extra state of a module
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a restart after a crash, sees the old one or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let what was renamed or removed in a folder outlive a power cut, where the system can promise that."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_state(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header as one file."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    whole = {"format": FORMAT, **header}
    digest = _whole_digest(plain, json.loads(json.dumps(whole)))
    atomic_write(path, save(plain, {_KEY: json.dumps({**whole, "digest": digest})}))


def _whole_digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """SHA-256 of the tensors and of everything else in a header that was read."""
    rest = json.dumps({key: value for key, value in header.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256(f"{_digest(tensors)}\n{rest}".encode()).hexdigest()


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
    damaged = f"the header of {path} is damaged"
    try:
        header = json.loads(metadata[_KEY])
        version, digest = header["format"], header["digest"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{damaged}: {error}. Restore it from a copy.") from error
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{damaged}: format {version}. Restore it from a copy.")
    if version > FORMAT:
        raise ValueError(f"{path} has format {version}, this version reads up to {FORMAT}. Update acclimate.")
    if digest != (_digest(tensors) if version == 1 else _whole_digest(tensors, header)):
        what = "tensors" if version == 1 else "tensors or numbers"
        raise ValueError(f"the {what} of {path} are not those that were written. Restore it from a copy.")
    return tensors, header
