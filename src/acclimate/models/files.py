"""Tensor files: safetensors, written whole or not at all, with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["PICKLE_SUFFIXES", "looks_pickled", "read_tensors", "write_tensors"]

PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".tar"})
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_HEADER = "acclimate"
_CHECKSUM, _SEAL = "sha256", "header_sha256"


def looks_pickled(start: bytes) -> bool:
    """Whether a file that begins with these nine bytes comes from `torch.save` or `pickle`."""
    # A safetensors file begins with the length of its header, which may well be 0x0280.
    return start.startswith(_PICKLE_STARTS) and start[4:9] != b"\0\0\0\0{"


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _seal(header: Mapping[str, str]) -> str:
    """SHA-256 of a header, the tensors' checksum included."""
    told = {key: value for key, value in header.items() if key != _SEAL}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share their memory, such as tied weights, get each its own: the format has no other way."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file and put it in place in one move; readers see the old file or the new one.

    The header is one JSON text in the file's metadata, with a SHA-256 of the tensors and one of the header, which
    `read_tensors` checks. The same tensors and header give the same bytes.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    draft = Path(name)
    try:
        # One entry: safetensors writes several in random order.
        told = {**header, _CHECKSUM: _checksum(plain)}
        text = json.dumps({**told, _SEAL: _seal(told)}, sort_keys=True)
        save_file(plain, draft, metadata={_HEADER: text})
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its header where `write_tensors` wrote it.

    Files of earlier versions, whose header has no checksum of its own, are read as they are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a pickle, a truncated or altered file, or one of another format.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights {path}; expected a .safetensors file.")
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix.lower() in PICKLE_SUFFIXES or looks_pickled(start):
        raise ValueError(
            f"{path} looks like a pickle (a torch.save file), and loading one can run code. Expected a "
            ".safetensors file. Where you trust the pickle, convert it once: "
            'safetensors.torch.save_file(model.state_dict(), "weights.safetensors").'
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header: dict[str, str] = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); it may be truncated. Save or fetch it anew."
        ) from error
    if _CHECKSUM in header and header[_CHECKSUM] != _checksum(tensors):
        raise ValueError(f"The tensors of {path} do not match their checksum; the file was altered or damaged.")
    if _SEAL in header and header[_SEAL] != _seal(header):
        raise ValueError(f"The header of {path} does not match its checksum; the file was altered or damaged.")
    return tensors, header
