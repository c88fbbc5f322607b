"""Weights from safetensors files, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from acclimate.models.files import read_tensors

__all__ = ["load_weights"]

_SHOWN = 4


def _few(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return f"{len(names)} ({shown}{', ...' if len(names) > _SHOWN else ''})"


def _faults(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    optional = ".num_batches_tracked"
    missing = [key for key in expected if key not in found and not key.endswith(optional)]
    unexpected = [key for key in found if key not in expected]
    shapes = [
        f"{key}: {list(found[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    kinds = [
        f"{key}: {found[key].dtype} instead of {value.dtype}"
        for key, value in expected.items()
        if key in found and found[key].is_floating_point() != value.is_floating_point()
    ]
    broken = [key for key, value in found.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    named = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
        "of another type": kinds,
        "with values that are not finite": broken,
    }
    return [f"{title}: {_few(keys)}" for title, keys in named.items() if keys]


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill a model with the weights of a safetensors file; nothing changes if they do not fit.

    Only the counters `num_batches_tracked` may be missing: old checkpoints lack them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: keys missing, unexpected or of another shape or type; values that are not finite; a
            pickle; a truncated file.
    """
    tensors, _ = read_tensors(path)
    expected: dict[str, Tensor] = model.state_dict()
    faults = _faults(expected, tensors)
    if faults:
        prefixed = tensors and all(key.startswith("module.") for key in tensors)
        hint = " All keys start with 'module.': save model.module.state_dict()." if prefixed else ""
        raise ValueError(
            f"{path} does not fit {type(model).__name__} ({len(expected)} tensors). Tensors "
            f"{'; '.join(faults)}.{hint} Take the weights that belong to this model, or the model "
            "that belongs to these weights."
        )
    with torch.no_grad():
        model.load_state_dict({**expected, **tensors})
