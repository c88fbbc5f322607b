"""Whether the parts of a laboratory fit each other."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from acclimate.streams.scenes import VOID

__all__ = ["checked_images", "checked_labels", "checked_masks"]


def checked_images(name: str, images: Tensor) -> None:
    """ValueError unless images are uint8 `[N, 3, S, S]`, at least one."""
    shape = tuple(images.shape)
    if images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or 0 in shape:
        raise ValueError(
            f"The images of {name!r} are {images.dtype} {list(shape)}; expected torch.uint8 [N, 3, S, S], at least "
            "one. Bring pictures to one size by crop or whole of acclimate.fields.cells.data.crops."
        )


def checked_labels(name: str, count: int, labels: Tensor, classes: tuple[str, ...], keys: tuple[str, ...]) -> None:
    """ValueError unless there is a label below the number of classes, and a key of its own, for each image."""
    if labels.dtype != torch.int64 or tuple(labels.shape) != (count,):
        raise ValueError(
            f"The labels of {name!r} are {labels.dtype} {list(labels.shape)}; expected torch.int64 [{count}], one for "
            "each image, -1 where the class is not known."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < -1 or high >= len(classes):
        raise ValueError(
            f"The labels of {name!r} reach from {low} to {high}, but it names {len(classes)} classes; labels count "
            "from 0, and -1 is for unknown."
        )
    _all_different(name, "classes", classes)
    if len(keys) != count:
        raise ValueError(f"{name!r} has {len(keys)} keys for {count} images; expected one for each.")
    _all_different(name, "keys", keys)


def _all_different(name: str, what: str, words: tuple[str, ...]) -> None:
    word, times = Counter(words).most_common(1)[0] if words else ("", 1)
    if times > 1:
        raise ValueError(f"The {what} of {name!r} hold {word!r} {times} times; expected each once.")


def checked_masks(name: str, images: Tensor, masks: Tensor) -> None:
    """ValueError unless masks are int8 `[N, S, S]` with 0, 1 and 2, or `VOID` all over an image."""
    expected = [len(images), *images.shape[2:]]
    if masks.dtype != torch.int8 or list(masks.shape) != expected:
        raise ValueError(
            f"The masks of {name!r} are {masks.dtype} {list(masks.shape)}; expected torch.int8 {expected}, one number "
            "for each pixel."
        )
    lowest, highest = masks.flatten(1).amin(1), masks.flatten(1).amax(1)
    low, high = int(lowest.min()), int(highest.max())
    if low < VOID or high > 2:
        raise ValueError(
            f"The masks of {name!r} reach from {low} to {high}; expected 0 background, 1 cytoplasm or whole cell, 2 "
            f"nucleus, {VOID} unknown."
        )
    partly = int(((lowest == VOID) & (highest != VOID)).sum())
    if partly:
        raise ValueError(
            f"{partly} masks of {name!r} are {VOID} in places; expected a mask to be known for all pixels of an image "
            "or for none."
        )
