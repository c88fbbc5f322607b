"""Independent pieces of work in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

__all__ = ["side_by_side"]

T = TypeVar("T")


def side_by_side(work: Callable[[T], object], items: Sequence[T], jobs: int) -> Iterator[T]:
    """Do the work of each item, `jobs` at a time, and give the items as they are done.

    With one job, or one item, in this process and in order. `work` and the items go to fresh processes: a function of a
    module, or a partial of one. What raises ends the rest.
    """
    if jobs == 1 or len(items) < 2:
        for item in items:
            work(item)
            yield item
        return
    with ProcessPoolExecutor(min(jobs, len(items)), mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(work, item): item for item in items}
        try:
            for each in as_completed(waiting):
                each.result()
                yield waiting[each]
        finally:
            pool.shutdown(cancel_futures=True)
