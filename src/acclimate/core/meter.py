"""Memory as it is: the bytes that autograd really keeps, and the bytes of declared state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Memory", "tensor_bytes"]


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind these tensors, each storage once and whole, however small the view."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: of the source model, of declared state by kind, of the rollback copy, and of one measured step.

    With a measured step, `state` and `rollback` are what is there after it, moments of the optimiser included.
    `saved` is the peak of what autograd kept for backward during that step, the probe of a memory policy included;
    `stock` what it would have kept without a policy; `predicted` is `saved` from two smaller batches, extrapolated;
    `device` the peak of the allocator above what was there before, on CUDA, and on CPUs where torch's profiler is to
    watch (`acclimate.memory.profiled`). None where nothing was measured.
    """

    model: int
    state: Mapping[str, int]
    rollback: int
    saved: int | None = None
    predicted: int | None = None
    stock: int | None = None
    device: int | None = None

    @property
    def total(self) -> int:
        """Everything beyond the model itself."""
        return sum(self.state.values()) + self.rollback + (self.saved or 0)
