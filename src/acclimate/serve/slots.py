"""Which worker has a stream: its slot never changes, and workers divide the slots among them."""

from __future__ import annotations

import hashlib

__all__ = ["SLOTS", "slot", "slots_of", "worker_of"]

SLOTS = 64
"""As many workers can share a folder. Part of its format: it never changes."""


def slot(stream: str) -> int:
    """The slot of a stream id, in 0..63: SHA-256 of the id modulo 64.

    >>> slot("line-3")
    13
    """
    return hashlib.sha256(stream.encode()).digest()[-1] % SLOTS


def worker_of(stream: str, workers: int) -> int:
    """Which of 1..64 workers answers for a stream: its slot modulo their number.

    No worker has more than one slot beyond another. All workers start anew when their number changes and read their
    streams from the folder, so that nothing is gained by moving as few slots as possible.
    """
    return slot(stream) % workers


def slots_of(worker: int, workers: int) -> range:
    """The slots of one of several workers. ValueError unless 0 <= worker < workers <= 64.

    >>> [len(slots_of(worker, 3)) for worker in range(3)]
    [22, 21, 21]
    """
    if not 0 <= worker < workers <= SLOTS:
        raise ValueError(f"found worker {worker} of {workers}, expected one of 0..{SLOTS - 1}, below their number.")
    return range(worker, SLOTS, workers)
