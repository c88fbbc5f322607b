"""Making the next items while the present one is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["made_ahead"]

A = TypeVar("A")
B = TypeVar("B")


def made_ahead(make: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[tuple[A, B]]:
    """Each item with `make` of it, in order; a thread makes up to `ahead` of them before they are asked for.

    What was raised while making an item is raised in its turn.

    >>> list(made_ahead(len, ["a", "bc"], ahead=1))
    [('a', 1), ('bc', 2)]
    """
    if ahead < 1:
        for item in items:
            yield item, make(item)
        return
    waiting: deque[tuple[A, Future[B]]] = deque()
    pool = ThreadPoolExecutor(1, "acclimate-ahead")
    try:
        for item in items:
            waiting.append((item, pool.submit(make, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        for item, future in waiting:
            yield item, future.result()
    finally:
        # A consumer that stops early waits for one item at most.
        pool.shutdown(cancel_futures=True)
