"""How many threads to compute with."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

__all__ = ["choose_threads", "use_threads"]

_TOLERANCE = 1.15


def use_threads(count: int) -> None:
    """ValueError unless there is at least one."""
    if count < 1:
        raise ValueError(f"--threads is {count}; expected 1 or more.")
    torch.set_num_threads(count)


@torch.no_grad()
def _seconds(model: nn.Module, images: Tensor, threads: int) -> float:
    torch.set_num_threads(threads)
    model(images[: max(1, len(images) // 4)])
    start = time.perf_counter()
    model(images)
    return time.perf_counter() - start


def choose_threads(model: nn.Module, images: Tensor) -> int:
    """The smallest number of threads that answers a batch about as fast as any; torch uses it from now on.

    Torch takes all cores by default. On a machine that others use too, or with a small model, its threads then
    mostly wait for each other, and one thread can be ten times as fast.
    """
    count = best = torch.get_num_threads()
    least = _seconds(model, images, count)
    while count > 1:
        count //= 2
        seconds = _seconds(model, images, count)
        if seconds > _TOLERANCE * least:
            break
        best, least = count, min(least, seconds)
    torch.set_num_threads(best)
    return best
