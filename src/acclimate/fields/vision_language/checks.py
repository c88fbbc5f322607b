"""What a vision-language model is built of, looked at before anything is learned from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from acclimate.core.config import positive
from acclimate.fields.vision_language.lengths import direction
from acclimate.fields.vision_language.texts.names import readable

__all__ = ["check_auxiliary", "named", "scale", "text_matrix_of", "wrong_rows"]


def wrong_rows(features: Tensor) -> str | None:
    """Which rows of features `[n, D]` are not finite or all zero, in words; None where there are none."""
    for bad, told in ((~features.isfinite().all(1), "not finite"), (~features.any(1), "all zero")):
        rows = bad.nonzero().flatten().tolist()
        if rows:
            return f"{len(rows)} rows that are {told}: {', '.join(map(str, rows[:5]))}{', ...' if rows[5:] else ''}"
    return None


def text_matrix_of(given: Any) -> Tensor:
    """Unit rows of text features `[K, D]`. ValueError for anything else, no classes, and rows without a direction."""
    found = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
    wrong = None
    if isinstance(given, Tensor) and given.ndim == 2 and given.numel():
        wrong = wrong_rows(given.detach())
        if wrong is None:
            return direction(given.detach())
    raise ValueError(
        f"found text features {found}{f' with {wrong}' if wrong else ''}, expected a tensor [K, D] with a finite row, "
        "not all zero, for each of one or more classes. Build them with vision_language.text_matrix, or average and "
        "stack your encoder's."
    )


def scale(given: Any) -> float:
    """The number s that logits are scaled by. ValueError for what is no finite number above 0."""
    number: Any = given.item() if isinstance(given, Tensor) and given.numel() == 1 else given
    positive(logit_scale=number)
    return float(number)


def named(classes: Sequence[str], rows: int, *, repeats: bool) -> tuple[str, ...]:
    """Names of classes as they are. ValueError for another number than rows of texts, and for what `readable` does."""
    if not len(classes):
        return ()
    readable(classes, repeats=repeats)
    if len(classes) != rows:
        raise ValueError(f"found {len(classes)} names for {rows} rows of text features. Give each class one.")
    return tuple(classes)


def check_auxiliary(auxiliary: Any, x: Any) -> None:
    """ValueError unless these are features `[N, A]` of the N images of `x`."""
    if isinstance(auxiliary, Tensor) and auxiliary.ndim == 2 and auxiliary.is_floating_point():
        if len(auxiliary) == len(x) and auxiliary.shape[1]:
            return
        found = list(auxiliary.shape)
    else:
        tensor = isinstance(auxiliary, Tensor)
        found = f"{auxiliary.dtype} {list(auxiliary.shape)}" if tensor else type(auxiliary).__name__
    raise ValueError(
        f"found auxiliary features {found} for {len(x)} images, expected floats [{len(x)}, A], a row for each image. "
        "Pass those of these images, in their order."
    )
