"""The way to one worker: questions in order, a new worker where the old one died or hangs."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

from torch import Tensor

from acclimate.fields.recommendation.serving.wire import Wire, read_answer, write_question
from acclimate.fields.recommendation.serving.worker import work

__all__ = ["Lane", "Question", "Worker", "local", "remote"]

_log = logging.getLogger(__name__)

_LOOK = 0.05
_LONGEST_PAUSE = 10.0


class Question:
    """Ids, and what members have answered so far, why others have not, and which of these refused the ids; `told` is
    notified at each."""

    def __init__(self, number: int, ids: Tensor, deadline: float) -> None:
        self.number, self.ids, self.deadline = number, ids, deadline
        self.answers: dict[int, Tensor] = {}
        self.reasons: dict[int, str] = {}
        self.refused: set[int] = set()
        self.told = threading.Condition()

    def tell(self, member: int, answer: Tensor | str, *, refused: bool = False) -> None:
        with self.told:
            if isinstance(answer, str):
                self.reasons[member] = answer
                if refused:
                    self.refused.add(member)
            else:
                self.answers[member] = answer
            self.told.notify_all()


class Worker:
    """A wire, and how what is at its other end is ended."""

    def __init__(self, wire: Wire, end: Callable[[], None] = lambda: None) -> None:
        self.wire, self.end = wire, end


def local(path: str | Path) -> Callable[[], Worker]:
    """A process on this machine for the member of a file."""

    def start() -> Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process: Any = context.Process(target=work, args=(str(path), theirs), daemon=True)
        process.start()
        theirs.close()

        def end() -> None:
            process.kill()
            process.join()

        return Worker(ours, end)

    return start


def remote(host: str, port: int, key: bytes) -> Callable[[], Worker]:
    """A worker that listens elsewhere, see `worker.listen`."""
    return lambda: Worker(Client((host, port), authkey=key))


class Lane:
    """Arguments: `member`, its place; `start`, what gives a worker; `hung`, seconds after which one that owes an answer
    is ended; `waiting`, how many questions may wait, beyond which the member is missing."""

    def __init__(self, member: int, start: Callable[[], Worker], *, hung: float, waiting: int) -> None:
        self.member, self._start, self._hung = member, start, hung
        self._waiting: deque[Question] = deque()
        self._most = waiting
        self._called = threading.Condition()
        self._closed = False
        self._worker: Worker | None = None
        self.ready = threading.Event()
        self.starts = 0
        self.seconds: deque[float] = deque(maxlen=1000)
        self._thread = threading.Thread(target=self._run, name=f"member-{member}", daemon=True)
        self._thread.start()

    def ask(self, question: Question) -> None:
        """Never waits."""
        with self._called:
            full = len(self._waiting) >= self._most
            if not full and self.ready.is_set():
                self._waiting.append(question)
                self._called.notify()
                return
        question.tell(self.member, "too many questions wait" if full else "its worker is starting")

    def interrupt(self) -> None:
        """End the worker; another is started."""
        worker = self._worker
        if worker is not None:
            worker.end()

    def close(self) -> None:
        with self._called:
            self._closed = True
            self._called.notify()
        self._thread.join()

    def _run(self) -> None:
        pause = 0.1
        while not self._closed:
            begun = time.monotonic()
            try:
                worker = self._worker = self._start()
                self.starts += 1
                self._serve(worker.wire)
            except (EOFError, OSError, multiprocessing.ProcessError) as error:
                _log.warning("the worker of member %d is gone (%s); another is started.", self.member, error)
            finally:
                self.ready.clear()
                self._refuse()
                ended, self._worker = self._worker, None
                if ended is not None:
                    ended.wire.close()
                    ended.end()
            pause = 0.1 if time.monotonic() - begun > _LONGEST_PAUSE else min(2 * pause, _LONGEST_PAUSE)
            with self._called:
                self._called.wait_for(lambda: self._closed, pause)

    def _serve(self, wire: Wire) -> None:
        self._await(wire, 120.0)  # it imports, and loads
        wire.recv_bytes()
        self.ready.set()
        while (question := self._next()) is not None:
            if time.monotonic() >= question.deadline:  # nobody waits for it
                question.tell(self.member, "too late")
                continue
            wire.send_bytes(write_question(question.number, question.ids))
            try:
                self._await(wire, self._hung)
                number, answer, seconds = read_answer(wire.recv_bytes())
            except (EOFError, OSError):
                question.tell(self.member, "its worker is gone")
                raise
            if number != question.number:
                raise OSError(f"it answered question {number} instead of {question.number}")
            self.seconds.append(seconds)
            question.tell(self.member, answer, refused=isinstance(answer, str))

    def _await(self, wire: Wire, limit: float) -> None:
        until = time.monotonic() + limit
        while not wire.poll(_LOOK):
            if self._closed:
                raise EOFError("closed")
            if time.monotonic() > until:
                raise TimeoutError(f"no answer for {limit:g} s")

    def _next(self) -> Question | None:
        with self._called:
            self._called.wait_for(lambda: self._closed or self._waiting)
            return None if self._closed else self._waiting.popleft()

    def _refuse(self) -> None:
        with self._called:
            left = list(self._waiting)
            self._waiting.clear()
        for question in left:
            question.tell(self.member, "its worker is gone")
