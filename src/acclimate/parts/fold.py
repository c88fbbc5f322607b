"""Many views folded into few forwards, and many answers put into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from acclimate.core.output import replace_tensors
from acclimate.core.state import State
from acclimate.parts.agreement import View
from acclimate.parts.views import check_images

__all__ = ["check_whole_images", "mean_over_views", "together"]


_ROWS, _ROWS_CPU = 4096, 256


def mean_over_views(state: State, x: Tensor, views: View, copies: int, rows_at_once: int | None) -> Tensor:
    """Mean logits of `copies` random views of the batch, each normalised as if it had come by itself.

    As many views share a forward as fit into `rows_at_once` rows, at least one. None: 4,096 on an accelerator, which
    needs few large launches, 256 on the CPU, whose caches larger tensors overflow.
    """
    generator, rows = state.generator("views"), torch.arange(len(x))
    limit = rows_at_once or (_ROWS_CPU if x.device.type == "cpu" else _ROWS)
    most = max(1, limit // len(x))
    found: list[Tensor] = []
    for first in range(0, copies, most):
        count = min(most, copies - first)
        folded = torch.cat([views(x, generator) for _ in range(count)])
        found.append(state.forward(folded, answering=False, groups=count, rows=rows.repeat(count)))
    return torch.cat(found).unflatten(0, (copies, len(x))).mean(0)


def check_whole_images(method: str, x: Tensor, extremes: tuple[float, float], logits: Tensor) -> None:
    """ValueError unless `x` is images in [0, 1] with one answer each: views move their pixels about."""
    if x.ndim != 4 or logits.ndim != 2:
        raise ValueError(
            f"the views of {method} are made of images [N, C, H, W] with one answer [N, C] each, found {list(x.shape)} "
            f"and {list(logits.shape)}. Pass views= of your own, or choose a method without augmentation."
        )
    check_images(method, x, extremes)


def together(outputs: Sequence[Any]) -> Any:
    """One output of the model from many for one row each: tensors with a row are put one after another.

    Those without, and everything that is no tensor, are the first output's.
    """
    parts: list[list[Tensor]] = []
    for output in outputs:
        parts.append([])
        replace_tensors(output, parts[-1].append)
    columns = zip(*parts, strict=True)

    def join(_: Tensor) -> Tensor:
        column = next(columns)
        return torch.cat(column) if all(part.shape[:1] == (1,) for part in column) else column[0]

    return replace_tensors(outputs[0], join)
