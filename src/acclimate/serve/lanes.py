"""Queues by key: jobs of one key run in order and one at a time, those of different keys side by side."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Full", "Lanes"]

_log = logging.getLogger(__name__)

J = TypeVar("J")


class Full(Exception):
    """No room for another job: `everywhere`, or in this lane only."""

    def __init__(self, everywhere: bool) -> None:
        super().__init__("all lanes are full" if everywhere else "this lane is full")
        self.everywhere = everywhere


@dataclass(slots=True)
class _Lane(Generic[J]):
    jobs: deque[J] = field(default_factory=deque)
    due: float = 0.0
    active: bool = False
    lined_up: bool = False


class Lanes(Generic[J]):
    """Threads that work off one queue for each key, in turn.

    Arguments: `name`, of the threads; `start`, called in each thread when it begins, gives what is called with a key
    whose lane has jobs, and takes them with `take`; `per_lane` and `total`, most jobs that wait; `window`, seconds that
    the first job of a lane waits for others.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Callable[[str], None]],
        *,
        workers: int,
        per_lane: int,
        total: int,
        window: float = 0.0,
    ) -> None:
        self._start, self._window = start, window
        self._per_lane, self._total = per_lane, total
        lock = threading.RLock()
        self._change, self._ended = threading.Condition(lock), threading.Condition(lock)
        self._lanes: dict[str, _Lane[J]] = {}
        self._turns: deque[str] = deque()
        self._waiting = self._running = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"acclimate-{name}-{number}", daemon=True)
            for number in range(workers)
        ]

    def open(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Jobs that wait."""
        return self._waiting

    def put(self, key: str, job: J) -> None:
        """Append a job to the lane of a key. Raises Full."""
        with self._change:
            if self._waiting >= self._total or self._closed:
                raise Full(True)
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = _Lane()
            if len(lane.jobs) >= self._per_lane:
                raise Full(False)
            lane.jobs.append(job)
            self._waiting += 1
            if not lane.active and not lane.lined_up:
                self._line_up(key, lane)

    def _line_up(self, key: str, lane: _Lane[J]) -> None:
        lane.due = time.monotonic() + self._window if self._window else 0.0
        lane.lined_up = True
        self._turns.append(key)
        self._change.notify()

    def take(self, key: str) -> J | None:
        """The next job of a lane, for the thread that works on it."""
        with self._change:
            lane = self._lanes.get(key)
            if lane is None or not lane.jobs:
                return None
            self._waiting -= 1
            return lane.jobs.popleft()

    def back(self, key: str, job: J) -> None:
        """Put a job that was taken back to where it was."""
        with self._change:
            self._lanes[key].jobs.appendleft(job)
            self._waiting += 1

    def clear(self, key: str) -> list[J]:
        """Take every job that waits in a lane."""
        with self._change:
            lane = self._lanes.get(key)
            if lane is None:
                return []
            jobs = list(lane.jobs)
            lane.jobs.clear()
            self._waiting -= len(jobs)
            self._ended.notify_all()
            return jobs

    def settle(self, timeout: float) -> bool:
        """Wait until nothing waits and nothing runs, at most so many seconds; whether that came."""
        with self._change:
            return self._ended.wait_for(lambda: not self._waiting and not self._running, timeout)

    def close(self, timeout: float = 5.0) -> list[J]:
        """Stop after what runs now; returns the jobs that nobody will do."""
        with self._change:
            self._closed = True
            left = [job for lane in self._lanes.values() for job in lane.jobs]
            for lane in self._lanes.values():
                lane.jobs.clear()
            self._waiting = 0
            self._change.notify_all()
            self._ended.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout)
        return left

    def _next(self) -> str | None:
        with self._change:
            while not self._closed:
                now, soon = time.monotonic(), None
                for _ in range(len(self._turns)):
                    key = self._turns.popleft()
                    lane = self._lanes[key]
                    if not lane.jobs:  # cleared
                        del self._lanes[key]
                    elif lane.due <= now or len(lane.jobs) >= self._per_lane:
                        lane.active, lane.lined_up = True, False
                        self._running += 1
                        if self._turns:
                            self._change.notify()  # to watch what is not due yet
                        return key
                    else:
                        self._turns.append(key)
                        soon = lane.due if soon is None else min(soon, lane.due)
                self._change.wait(None if soon is None else max(0.0, soon - now))
            return None

    def _done(self, key: str) -> None:
        with self._change:
            self._running -= 1
            lane = self._lanes[key]
            lane.active = False
            if lane.jobs:
                self._line_up(key, lane)
            else:
                del self._lanes[key]
            self._ended.notify_all()

    def _work(self) -> None:
        work = self._start()
        while (key := self._next()) is not None:
            try:
                work(key)
            except Exception:
                _log.exception("a job of %s failed in a way that nobody foresaw", key)
            finally:
                self._done(key)
