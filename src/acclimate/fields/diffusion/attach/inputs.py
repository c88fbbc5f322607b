"""What a transformer was given, in 64 bits, so that ranks can compare it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["digest"]


def digest(given: Mapping[str, Any]) -> int:
    """64 bits of all tensors, numbers and texts in the arguments of a forward, however nested; never 0.

    Arguments:
        given: by name. Objects of other kinds count by their class alone.

    >>> digest({"timestep": torch.tensor([900.0])}) == digest({"timestep": torch.tensor([901.0])})
    False
    """
    hashed = hashlib.blake2b(digest_size=8)
    _add(hashed, given)
    return int.from_bytes(hashed.digest(), "little") or 1


def _add(hashed: hashlib.blake2b, value: Any) -> None:
    if isinstance(value, Tensor):
        hashed.update(f"{value.dtype}{list(value.shape)}".encode())
        hashed.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        for name in sorted(value, key=str):
            hashed.update(f"{name}:".encode())
            _add(hashed, value[name])
    elif isinstance(value, list | tuple):
        hashed.update(f"{len(value)}".encode())
        for each in value:
            _add(hashed, each)
    else:
        known = value is None or isinstance(value, bool | int | float | str)
        hashed.update((repr(value) if known else type(value).__name__).encode())
