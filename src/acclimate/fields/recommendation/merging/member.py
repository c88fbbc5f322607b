"""One member as one file: its weights, and how it is built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from acclimate.fields.recommendation.models.described import described
from acclimate.fields.recommendation.models.registry import build
from acclimate.models.files import read_tensors, write_tensors

__all__ = ["check_member", "load_member", "save_member"]

R = TypeVar("R")

_KEYS = ("name", "sizes", "width", "options")


def save_member(model: nn.Module, path: Path) -> None:
    """Weights, and how `build` makes the model, if it is one of its own."""
    write_tensors(path, model.state_dict(), described(model))


def load_member(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """What `save_member` wrote, in evaluation mode, with numbers of the types they had.

    Arguments: `model`, which is filled in place; needed where it is not from `build`.

    Raises FileNotFoundError where there is no file, ValueError for one that is damaged or altered, or where a model is
    needed or another one.
    """
    tensors, header = _read(path, read_tensors)
    if model is None:
        made = _made(path, header)
        try:
            model = build(made["name"], made["sizes"], width=made["width"], **made["options"])
        except Exception as error:  # whatever stands there
            raise ValueError(f"{path} tells of a model that cannot be built: {error}") from error
    _set_types(model, tensors)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the weights of {path} do not fit {type(model).__name__}: {error}") from error
    return model.eval()


def check_member(path: str | Path) -> None:
    """Errors of `load_member` that show without the weights being read: whether there is a file of a model that can
    be built."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}, expected a member that save_member wrote.")
    _made(path, _read(path, _header))


def _header(path: str | Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {}).get("acclimate", "{}"))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}). Save the member anew.") from error


def _read(path: str | Path, read: Callable[[str | Path], R]) -> R:
    try:
        return read(path)
    except (TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"the header of {path} is damaged ({error}). Save the member anew.") from error


def _made(path: str | Path, header: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(header, dict) or not isinstance(header.get("built", ""), str):
        raise ValueError(f"the header of {path} is damaged. Save the member anew.")
    if "built" not in header:
        raise ValueError(
            f"{path} holds weights of a model of your own. Give its architecture, as in "
            "load_merged(folder, members=[...])."
        )
    if header.get("built_sha256") != _digest(header["built"]):
        raise ValueError(f"how {path} is built does not match its checksum; the file was altered or damaged.")
    try:
        made = json.loads(header["built"])
        fits = isinstance(made["name"], str) and isinstance(made["sizes"], list) and isinstance(made["options"], dict)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"how {path} is built cannot be read ({error}). Save the member anew.") from error
    if not fits or set(made) != set(_KEYS):
        raise ValueError(f"how {path} is built has other parts than {', '.join(_KEYS)}. Save the member anew.")
    return made


def _set_types(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Let the model's floating-point numbers be of the types that were saved."""
    kinds = {each.dtype for each in tensors.values() if each.is_floating_point()}
    if len(kinds) == 1:
        model.to(kinds.pop())
    for name, own in (*model.named_parameters(), *model.named_buffers()):
        if name in tensors and torch.is_floating_point(own) and tensors[name].dtype != own.dtype:
            own.data = own.data.to(tensors[name].dtype)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
