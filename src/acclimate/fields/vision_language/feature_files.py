"""Files of features, `.safetensors` or `.npz`. Neither can hold anything that runs when it is read."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from acclimate.core.storage import atomic_write
from acclimate.fields.vision_language.features import Features

__all__ = ["SUFFIXES", "read_features", "suffix_of", "write_features"]

SUFFIXES = (".safetensors", ".npz")

_REQUIRED = ("clip", "text", "logit_scale")
_OPTIONAL = ("auxiliary", "simple", "labels")


def write_features(path: str | Path, features: Features) -> Path:
    """Write features as one file, by its suffix `.safetensors` or `.npz`, whole or not at all; returns its path.

    Arrays: `clip` `[n, V, D]`, `text` `[K, D]`, `logit_scale` `[]` and, as far as there are any, `auxiliary` `[n, A]`,
    `simple` `[K, D]` and `labels` `[n]`. `classes` are a JSON list in the metadata of the first and an array of strings
    in the second. Types are kept, so half precision halves the file; `.npz` has no bfloat16, which becomes float32.

    Raises ValueError for another suffix.

    >>> path = write_features("pets.npz", Features(clip=torch.eye(3), text=torch.eye(2, 3), classes=("cat", "dog")))
    >>> read_features(path).classes
    ('cat', 'dog')
    """
    path = Path(path).expanduser()
    kind = suffix_of(path)
    scale = torch.tensor(features.logit_scale, dtype=torch.float64)
    given = {name: getattr(features, name) for name in ("clip", "text", *_OPTIONAL)}
    arrays = {name: array.detach().cpu().contiguous() for name, array in given.items() if array is not None}
    arrays["logit_scale"] = scale
    if kind == ".safetensors":
        metadata = {"classes": json.dumps(features.classes)} if features.classes else {}
        data = save(arrays, metadata)
    else:
        plain = {name: (a.float() if a.dtype == torch.bfloat16 else a).numpy() for name, a in arrays.items()}
        names = {"classes": np.array(features.classes, dtype=np.str_)} if features.classes else {}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **plain, **names)
        data = buffer.getvalue()
    atomic_write(path, data)
    return path


def read_features(path: str | Path, *, name: str | None = None, repeats: bool = False) -> Features:
    """Read what `write_features` writes, or what others have put into the same arrays.

    `logit_scale` may be of one or no axes, `clip` `[n, D]` where there is one view of each image. Other arrays are left
    alone.

    Arguments:
        path: a file ending in `.safetensors` or `.npz`.
        name: of the data set; the file's by default.
        repeats: allow a class name to occur twice, as in ImageNet.

    Raises FileNotFoundError for no such file; ValueError for one that is damaged, lacks an array, holds pickled objects
    or what `Features` refuses: it names the file, what is wrong and in which rows.
    """
    path = Path(path).expanduser()
    kind = suffix_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no feature file {path}. Write one with write_features or encode_features.")
    arrays, classes = _safetensors(path) if kind == ".safetensors" else _npz(path)
    missing = [each for each in _REQUIRED if each not in arrays]
    if missing:
        raise ValueError(
            f"{path} has the arrays {', '.join(sorted(arrays)) or 'none'}, and {', '.join(missing)} are missing. "
            "Expected clip [n, V, D], text [K, D] and logit_scale."
        )
    scale = arrays["logit_scale"]
    if scale.numel() != 1 or scale.is_complex():
        raise ValueError(f"{path} has logit_scale {scale.dtype} {list(scale.shape)}, expected one number.")
    known = {each: arrays[each] for each in ("clip", "text", *_OPTIONAL) if each in arrays}
    try:
        return Features(**known, logit_scale=float(scale), classes=classes, repeats=repeats, name=name or path.stem)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def suffix_of(path: Path) -> str:
    """That of a feature file. ValueError for another."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} ends in {path.suffix!r}, expected {' or '.join(SUFFIXES)}. Name it so.")
    return path.suffix


def _safetensors(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    try:
        with safe_open(path, framework="pt") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told: Mapping[str, str] = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}). Write it again.") from error
    try:
        classes: Any = json.loads(told.get("classes", "[]"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} has metadata 'classes' that is no JSON ({error}), expected a list of names."
        ) from error
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{path} has metadata 'classes' of another form, expected a JSON list of names.")
    return arrays, tuple(classes)


def _npz(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    try:
        # An open file, since numpy leaves one open that it cannot read.
        with path.open("rb") as data, np.load(data, allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in (*_REQUIRED, *_OPTIONAL, "classes") if name in file.files}
    except Exception as error:  # each way of packing has errors of its own, and numpy passes them on
        raise ValueError(
            f"{path} is not a whole .npz file of plain arrays ({type(error).__name__}: {error}). Objects are not read; "
            "write it again."
        ) from error
    classes = found.pop("classes", np.array([], dtype=np.str_))
    if classes.ndim != 1 or classes.dtype.kind != "U":
        raise ValueError(f"{path} has classes {classes.dtype} {list(classes.shape)}, expected an array of K strings.")
    return {name: _tensor(path, name, array) for name, array in found.items()}, tuple(classes.tolist())


def _tensor(path: Path, name: str, array: NDArray[Any]) -> Tensor:
    """An array in whatever order of bytes. ValueError for a type that there is no tensor of."""
    try:
        if array.dtype.kind in "iuf":
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    except TypeError:
        pass
    raise ValueError(f"{path} has {name} of type {array.dtype}, expected numbers of at most 64 bits.")
