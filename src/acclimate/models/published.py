"""Checkpoints as others publish them: torch.save files and safetensors, unwrapped and renamed to fit."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from acclimate.models.files import PICKLE_SUFFIXES, looks_pickled, read_tensors

__all__ = ["fitted_names", "read_checkpoint", "without_normaliser"]

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net")
_PREFIXES = ("module.", "model.", "_orig_mod.")
_ZIP = b"PK\x03\x04"
_MEAN, _STD = ("mean", "mu"), ("std", "sigma")


def _refuse_text(path: Path, start: bytes) -> None:
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ValueError(
            f"{path} is a web page, not weights: the server answered the download with a page, such as a warning, a "
            "login or an error. Open the address in a browser, save the file itself, and pass its path."
        )
    if text.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not weights. Fetch the file itself: git lfs pull.")


def _refuse_short(path: Path, values: int) -> None:
    size = path.stat().st_size
    # Not even a byte for each number of the model.
    if size < values:
        raise ValueError(
            f"{path} holds {size:,} bytes, but the model has {values:,} numbers; the download was cut, or the file "
            "is something else. Fetch it again."
        )


def _unpickled(path: Path, start: bytes) -> Any:
    try:
        # Tensors and plain values only; nothing in the file is run. Only zip files can be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=start.startswith(_ZIP))
    except Exception as error:
        said = str(error)
        refused = re.search(r"GLOBAL (\S+)", said)
        if refused:
            raise ValueError(
                f"{path} holds more than tensors and plain values, and reading that can run code: it needs "
                f"{refused[1]}. Where you trust the file, keep its tensors once: "
                "torch.save(torch.load(path, weights_only=False)['state_dict'], 'new.pt')."
            ) from error
        if tarfile.is_tarfile(path):
            raise ValueError(
                f"{path} is a tar archive, of which only torch.save files are read. Unpack it and pass the file "
                "inside; a checkpoint of PyTorch before 0.4, which is such an archive, has to be converted."
            ) from error
        reason = " ".join(said.split(". ")[0].split()) or type(error).__name__
        raise ValueError(
            f"{path} is not a readable torch.save file ({reason}); it may be truncated. Fetch it again."
        ) from error


def _tensors(found: object) -> dict[str, Tensor] | None:
    if not isinstance(found, Mapping):
        return None
    entries = cast("Mapping[object, object]", found)
    named = {str(key): value for key, value in entries.items() if isinstance(value, Tensor)}
    return named if named and len(named) == len(entries) else None


def _state_dict(path: Path, found: object) -> dict[str, Tensor]:
    tensors = _tensors(found)
    if tensors is not None:
        return tensors
    entries = cast("Mapping[object, object]", found) if isinstance(found, Mapping) else {}
    for wrapper in _WRAPPERS:
        tensors = _tensors(entries.get(wrapper))
        if tensors is not None:
            return tensors
    keys = f"a dict with the keys {', '.join(map(str, list(entries)[:8]))}" if entries else type(found).__name__
    raise ValueError(
        f"{path} holds {keys}; expected tensors by name, bare or under one of {', '.join(_WRAPPERS)}. Save "
        "model.state_dict()."
    )


def read_checkpoint(path: str | Path, *, values: int = 0) -> dict[str, Tensor]:
    """The tensors by name of a safetensors file, or of a torch.save file, wrapped or not.

    `torch.save` files are read with `weights_only=True`, which admits tensors and plain values and runs nothing.

    Arguments:
        path: of the file; its first bytes decide what it is.
        values: how many numbers the model has; a file of fewer bytes is refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a web page, a file that is cut short or damaged, or one that holds other things.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights {path}; expected .safetensors, .pt, .pth or .tar.")
    with path.open("rb") as file:
        start = file.read(64)
    _refuse_text(path, start)
    _refuse_short(path, values)
    if looks_pickled(start) or path.suffix.lower() in PICKLE_SUFFIXES:
        return _state_dict(path, _unpickled(path, start))
    return read_tensors(path)[0]


def fitted_names(found: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """The tensors without the prefixes that wrappers of models leave: `module.`, `model.`, `_orig_mod.`.

    A prefix goes if all names have it and no expected one does.

    >>> list(fitted_names({"module.model.fc.bias": torch.zeros(1)}, ["fc.bias"]))
    ['fc.bias']
    """
    tensors = dict(found)
    while tensors:
        prefix = next((each for each in _PREFIXES if all(name.startswith(each) for name in tensors)), None)
        if prefix is None or any(name.startswith(prefix) for name in expected):
            break
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def without_normaliser(
    path: str | Path, found: Mapping[str, Tensor], expected: Collection[str], mean: Tensor, std: Tensor
) -> dict[str, Tensor]:
    """The tensors without the mean and standard deviation of a normaliser that was saved along.

    Arguments:
        path: of the file, for the error.
        found: tensors by name.
        expected: names that the model has; these stay.
        mean: what the model itself subtracts, one number for each channel.
        std: what the model itself divides by.

    Raises:
        ValueError: the file normalises by other numbers than the model.
    """
    kept: dict[str, Tensor] = {}
    for name, value in found.items():
        last = name.rpartition(".")[2]
        own = mean if last in _MEAN else std if last in _STD else None
        if own is None or name in expected or value.numel() not in (1, own.numel()):
            kept[name] = value
        elif not torch.allclose(value.flatten().to(own), own.flatten(), atol=1e-3):
            raise ValueError(
                f"{path} belongs to a model that normalises images by {name} = {_numbers(value)}, but this model has "
                f"{_numbers(own)} there. Build the model with the file's mean and std."
            )
    return kept


def _numbers(tensor: Tensor) -> str:
    return str([round(value, 4) for value in tensor.flatten().tolist()])
