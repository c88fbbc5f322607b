"""Images of the source, in whichever form they are given: for methods that measure it before they adapt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor

from acclimate.anatomy import takes_indices
from acclimate.core.inputs import Call
from acclimate.core.state import State

__all__ = ["source_batches"]

_FORMS = "images [N, ...], a pair (images, labels int64 [N]), or a list or loader of batches of either"


def source_batches(
    state: State,
    source: Any,
    batch_size: int,
    *,
    samples: int | None = None,
    labelled: bool = False,
    shuffle: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches of images, with labels `[B]` or None, on the model's device and in its number type.

    `source` is a tensor of images `[N, ...]` or a pair (images, labels), cut into batches, or an iterable of batches
    of either, taken as they come. `samples`: stop when so many rows have come. `labelled`: labels are needed.
    `shuffle` draws the order of a tensor or pair. For each batch the books of a step are opened, with gradients,
    and closed. ValueError if there are none, or no labels where they are needed.
    """
    like = next(p for p in state.model.parameters() if p.is_floating_point())
    taken = 0
    for item in _batches(source, batch_size, shuffle):
        x, labels = _parts(item) or (None, None)
        if x is None or len(x) == 0 or (labelled and labels is None):
            what = "images without labels" if x is not None and len(x) else _named(item)
            raise ValueError(f"source gave a batch of {what}, expected images{' and labels' * labelled}: {_FORMS}.")
        x = x.to(like.device, like.dtype) if x.is_floating_point() else x.to(like.device)
        call = Call.of((x,), {}, indices=takes_indices(state.model)).ordinary()
        state.begin(call)
        try:
            with torch.enable_grad():
                yield call.x, None if labels is None else labels.to(like.device)
        finally:
            state.end()
        taken += len(x)
        if samples is not None and taken >= samples:
            return
    if not taken:
        raise ValueError(f"source holds no images (a generator is empty after its first use). Expected {_FORMS}.")


def _batches(source: Any, batch_size: int, shuffle: torch.Generator | None) -> Iterator[Any]:
    one = isinstance(source, (tuple, list)) and len(cast("list[Any]", source)) == 1
    whole = None if one else _parts(source)
    if whole is None:
        if not isinstance(source, Iterable):
            raise ValueError(f"source is a {type(source).__name__}, expected {_FORMS}.")
        yield from cast("Iterable[Any]", source)
        return
    images, labels = whole
    order = torch.arange(len(images)) if shuffle is None else torch.randperm(len(images), generator=shuffle)
    for index in order.split(batch_size):
        x = images[index.to(images.device)]
        yield x if labels is None else (x, labels[index.to(labels.device)])


def _parts(item: Any) -> tuple[Tensor, Tensor | None] | None:
    """Images and labels, or None for anything else."""
    if isinstance(item, Tensor):
        return (item, None) if item.ndim > 1 else None
    if not isinstance(item, (tuple, list)) or not 1 <= len(cast("list[Any]", item)) <= 2:
        return None
    images, labels = [*cast("list[Any]", item), None][:2]
    if not isinstance(images, Tensor) or images.ndim < 2:
        return None
    if labels is None:
        return images, None
    fits = isinstance(labels, Tensor) and labels.shape == images.shape[:1] and labels.dtype == torch.int64
    return (images, labels) if fits else None


def _named(item: Any) -> str:
    return f"shape {list(item.shape)}" if isinstance(item, Tensor) else type(item).__name__
