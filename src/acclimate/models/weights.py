"""Weights from files, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from acclimate.models.layers import ImageModel
from acclimate.models.published import fitted_names, read_checkpoint, without_normaliser

__all__ = ["filled", "load_weights"]

M = TypeVar("M", bound=nn.Module)

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


def _renamed(
    model: nn.Module, path: str | Path, found: dict[str, Tensor], expected: Collection[str]
) -> dict[str, Tensor]:
    if isinstance(model, ImageModel):
        found = without_normaliser(path, found, expected, model.mean, model.std)
    return fitted_names(found, expected)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill a model with the weights of a checkpoint; nothing changes if they do not fit.

    The file is safetensors, or comes from `torch.save` (.pt, .pth, .tar): tensors by name, bare or under a key such
    as `state_dict`. Such files are read with `weights_only=True`; what can run code is refused. Prefixes of
    wrappers (`module.`, `model.`) go. Models of this library normalise images themselves: means and standard
    deviations saved along go, too, if they are the model's.

    Only the counters `num_batches_tracked` may be missing: old checkpoints lack them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: keys missing, unexpected or of another shape or type; values that are not finite; another
            normalisation; a web page; a file that is truncated or holds other things than tensors.
    """
    expected: dict[str, Tensor] = model.state_dict()
    found = read_checkpoint(path, values=sum(value.numel() for value in expected.values()))
    tensors = _renamed(model, path, found, expected)
    faults = _faults(expected, tensors)
    if faults:
        raise ValueError(
            f"{path} does not fit {type(model).__name__} ({len(expected)} tensors). Tensors "
            f"{'; '.join(faults)}. Take the weights that belong to this model, or the model "
            "that belongs to these weights."
        )
    with torch.no_grad():
        model.load_state_dict({**expected, **tensors})


def filled(model: M, weights: str | Path | None) -> M:
    """The model with these weights, or as it is without any, in evaluation mode."""
    if weights is not None:
        load_weights(model, weights)
    return model.eval()
