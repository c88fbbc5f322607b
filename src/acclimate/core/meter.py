"""Memory as it is: the bytes that autograd really keeps, and the bytes of declared state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn

__all__ = ["Memory", "SavedBytes", "tensor_bytes"]


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind these tensors."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: of the source model, of declared state by kind, of the rollback copy, and of one measured step.

    `saved` is the peak of what autograd kept for backward during that step; `predicted` the same from two
    smaller batches, extrapolated; both None when no input was given.
    """

    model: int
    state: Mapping[str, int]
    rollback: int
    saved: int | None = None
    predicted: int | None = None

    @property
    def total(self) -> int:
        """Everything beyond the model itself."""
        return sum(self.state.values()) + self.rollback + (self.saved or 0)


class _Kept:
    __slots__ = ("meter", "tensor")

    def __init__(self, tensor: Tensor, meter: SavedBytes) -> None:
        self.tensor = tensor
        self.meter = meter
        meter.add(tensor)

    def __del__(self) -> None:
        self.meter.remove(self.tensor)


class SavedBytes:
    """Counts the distinct storages that autograd keeps for backward, now and at the peak.

    Storages that live anyway (parameters and buffers of `model`) are not counted.
    """

    def __init__(self, model: nn.Module) -> None:
        owned = (*model.parameters(), *model.buffers())
        self._owned = {tensor.untyped_storage().data_ptr() for tensor in owned}
        self._users: dict[int, int] = {}
        self.now = 0
        self.peak = 0

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        users = self._users.get(storage.data_ptr(), 0)
        self._users[storage.data_ptr()] = users + 1
        if users == 0 and storage.data_ptr() not in self._owned:
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def remove(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._users[storage.data_ptr()] -= 1
        if self._users[storage.data_ptr()] == 0:
            del self._users[storage.data_ptr()]
            if storage.data_ptr() not in self._owned:
                self.now -= storage.nbytes()

    def __enter__(self) -> SavedBytes:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def _pack(self, tensor: Tensor) -> _Kept:
        return _Kept(tensor, self)

    def _unpack(self, kept: _Kept) -> Tensor:
        return kept.tensor
