"""Bytes that autograd holds, now and at the peak: what is really kept, and what stock PyTorch would keep."""

from __future__ import annotations

from collections.abc import Sequence

from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["Ledger"]


class Ledger:
    """Counts each storage once, however many operations keep it; storages that live anyway are not counted.

    A storage is known by its address as long as somebody holds a weak reference to it, which keeps the address from
    being given to another one.
    """

    def __init__(self, owned: Sequence[StorageWeakRef] = ()) -> None:
        self._owned = owned
        self._addresses = {reference.cdata for reference in owned}
        self._users: dict[int, list[int]] = {}
        self.now = 0
        self.peak = 0
        self.since = 0

    def owns(self, storage: StorageWeakRef) -> bool:
        return storage.cdata in self._addresses

    def holds(self, storage: StorageWeakRef) -> bool:
        return storage.cdata in self._users

    def add(self, storage: StorageWeakRef, size: int) -> None:
        """One more user of a storage; the first one brings its size."""
        known = self._users.get(storage.cdata)
        if known is not None:
            known[0] += 1
            return
        size = 0 if self.owns(storage) else size
        self._users[storage.cdata] = [1, size]
        self.change(size)

    def remove(self, storage: StorageWeakRef) -> None:
        """One user less."""
        known = self._users[storage.cdata]
        known[0] -= 1
        if not known[0]:
            del self._users[storage.cdata]
            self.change(-known[1])

    def change(self, size: int) -> None:
        """Count so many bytes more, or less, that are no storage of autograd's."""
        self.now += size
        self.peak = max(self.peak, self.now)
        self.since = max(self.since, self.now)

    def mark(self) -> int:
        """From now on `since` is the peak after this moment; gives that before it."""
        before, self.since = self.since, self.now
        return before
