"""A lock for each slot of a state folder, so that no two workers ever have one stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["Locks"]

_POLL = 0.005


class Locks:
    """The locks of a folder's slots, each a file. They end with the process that holds them.

    Arguments: `folder`, which must be on a file system whose locks hold for all machines that use it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "locks"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self.held = set[int]()

    def take(self, slots: Iterable[int]) -> bool:
        """Hold these until `close`. False where another process has one of them; then none is held."""
        slots = tuple(slots)
        with ExitStack() as stack:
            for number in slots:
                lock = self._lock(number)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    return False
                stack.callback(lock.release)
            self._stack = stack.pop_all()
        self.held |= set(slots)
        return True

    @contextmanager
    def holding(self, number: int, seconds: float) -> Iterator[None]:
        """Hold one slot for a while, one thread at a time. TimeoutError where another process keeps it for longer."""
        with self._lock(number).acquire(timeout=seconds, poll_interval=_POLL):
            self.held.add(number)
            try:
                yield
            finally:
                self.held.discard(number)

    def close(self) -> None:
        """Let go of what `take` has taken."""
        self.held.clear()
        self._stack.close()

    def _lock(self, number: int) -> FileLock:
        # taken and released by different threads
        return FileLock(self._folder / f"{number:02d}", thread_local=False)
