"""Features and labels as arrays of one kind, checked once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["Array", "Features", "Floats", "Labels", "as_features", "as_labels", "as_probabilities", "plain", "softmax"]

Array = ArrayLike | Tensor
Features = NDArray[np.float32]
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def plain(array: Array) -> NDArray[Any]:
    """An array or tensor, wherever it lies, as a numpy array."""
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        return (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    return np.asarray(array)


def as_features(features: Array, width: int | None = None) -> Features:
    """Features as float32 `[N, D]`.

    Raises:
        ValueError: another shape, another width than `width`, or values that are not finite.
    """
    found = plain(features)
    if found.ndim != 2 or found.shape[1] == 0 or found.dtype.kind not in "fiub":
        raise ValueError(f"The features are {found.dtype} {list(found.shape)}; expected numbers [N, D].")
    if width is not None and found.shape[1] != width:
        raise ValueError(f"The features have {found.shape[1]} columns; the classifier was fitted on {width}.")
    with np.errstate(over="ignore"):  # what float32 cannot hold is named below
        values = found.astype(np.float32)
    bad = ~np.isfinite(values).all(1)
    if bad.any():
        raise ValueError(
            f"The features of {bad.sum()} of {len(values)} cells hold NaN or infinity, the first in row "
            f"{int(bad.argmax())}. Leave these cells out or repair them."
        )
    return values


def as_labels(labels: Array, count: int | None = None, classes: int | None = None) -> Labels:
    """Labels as int64 `[N]`.

    Arguments:
        count: how many there have to be.
        classes: all have to lie in `0..classes - 1`; without it, none may be negative.

    Raises:
        ValueError: another shape, kind or number, or labels out of range.
    """
    found = plain(labels)
    if found.ndim != 1 or (found.dtype.kind not in "iub" and found.size):
        raise ValueError(f"The labels are {found.dtype} {list(found.shape)}; expected whole numbers [N].")
    if count is not None and len(found) != count:
        raise ValueError(f"There are {len(found)} labels for {count} cells; expected one for each.")
    values = found.astype(np.int64)
    odd = values[(values < 0) | (values >= (np.inf if classes is None else classes))]
    if odd.size:
        expected = "0 or more" if classes is None else f"0..{classes - 1}"
        raise ValueError(f"{odd.size} labels are out of range, {odd[0]} for one; expected {expected}.")
    return values


def as_probabilities(probabilities: Array) -> Floats:
    """Probabilities as float64 `[N, C]`; ValueError for another shape or values that are not in `[0, 1]`."""
    values = plain(probabilities).astype(np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(
            f"The probabilities have shape {list(values.shape)}; expected [N, C] with two classes or more."
        )
    bad = ~((values >= 0) & (values <= 1 + 1e-6)).all(1)
    if bad.any():
        raise ValueError(f"{bad.sum()} rows are no probabilities, the first is row {int(bad.argmax())}; expected 0..1.")
    return values


def softmax(logits: Floats) -> Floats:
    """Softmax of each row `[N, C]`."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
