"""The peak of a device's allocator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextvars import ContextVar

import torch

__all__ = ["device_peak", "profiled"]

_PROFILED: ContextVar[bool] = ContextVar("acclimate.memory.profiled", default=False)


@contextlib.contextmanager
def profiled() -> Generator[None]:
    """Within this block `model.memory(x).device` is measured on CPUs too.

    There torch's profiler has to watch every allocation: measured steps take up to twice as long, and the profiler may
    write a line of its own to the standard error. What oneDNN takes for itself is not in the number.

    >>> with profiled(), device_peak(torch.device("cpu")) as peak:
    ...     _ = torch.zeros(1 << 20) + 1
    >>> round(peak() / 2**20)
    8
    """
    before = _PROFILED.set(True)
    try:
        yield
    finally:
        _PROFILED.reset(before)


@contextlib.contextmanager
def device_peak(device: torch.device) -> Generator[Callable[[], int | None]]:
    """Gives a function: the highest bytes that the allocator handed out within this block, above what was there.

    Of CUDA's allocator; of the CPU's only within `profiled()`, to be asked after the block; None otherwise.
    """
    if device.type == "cuda":
        yield from _cuda_peak(device)
    elif device.type == "cpu" and _PROFILED.get():
        yield from _cpu_peak()
    else:
        yield lambda: None


def _cuda_peak(device: torch.device) -> Generator[Callable[[], int | None]]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)

    def peak() -> int:
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before

    yield peak


def _cpu_peak() -> Generator[Callable[[], int | None]]:
    from torch.profiler import ProfilerActivity, profile

    top: int | None = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        yield lambda: top

    # `events()` only has frees that belong to no operation; the raw record has every one.
    record = getattr(getattr(watched, "profiler", None), "kineto_results", None)
    changes = [event for event in record.events() if event.name() == "[memory]"] if record is not None else []
    now = highest = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    top = highest if changes else None
