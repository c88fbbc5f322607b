"""Step sizes that are others for one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.optim import Optimizer

__all__ = ["scaled"]


@contextmanager
def scaled(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """Multiply all step sizes by a factor inside; schedulers of the optimiser's own see none of it.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    >>> with scaled(optimizer, 0.5):
    ...     optimizer.param_groups[0]["lr"]
    0.25
    """
    if factor == 1.0:
        yield
        return
    kept = [group["lr"] for group in optimizer.param_groups]
    try:
        for group, lr in zip(optimizer.param_groups, kept, strict=True):
            group["lr"] = lr * factor
        yield
    finally:
        for group, lr in zip(optimizer.param_groups, kept, strict=True):
            group["lr"] = lr
