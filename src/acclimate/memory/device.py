"""The peak of an accelerator's allocator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

import torch

__all__ = ["device_peak"]


@contextlib.contextmanager
def device_peak(device: torch.device) -> Generator[Callable[[], int | None]]:
    """Gives a function: the highest bytes that CUDA's allocator handed out within this block, above what was there.

    None on other devices. Waits for the device on entering and when asked.
    """
    if device.type != "cuda":
        yield lambda: None
        return
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)

    def peak() -> int:
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before

    yield peak
