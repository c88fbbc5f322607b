"""The way to one member: questions in order, a new worker where the old one died or hangs."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from acclimate.fields.recommendation.serving.courier import Courier
from acclimate.fields.recommendation.serving.questions import Question, Waiting
from acclimate.fields.recommendation.serving.worker import in_words
from acclimate.fields.recommendation.serving.workers import Worker, local, remote

__all__ = ["Lane", "Question", "Worker", "local", "remote"]

_log = logging.getLogger(__name__)

_SHORTEST_PAUSE, _LONGEST_PAUSE, _LONGEST_UNABLE = 0.1, 10.0, 300.0


class Lane:
    """Starts workers, one after another, and looks after them.

    Pauses between starts double up to ten seconds, and up to five minutes where the member cannot be loaded.

    Arguments: `member`, its place; `start`, what gives a worker; `hung`, seconds after which one that owes an answer is
    ended; `waiting`, how many questions may wait, beyond which the member is missing.
    """

    def __init__(self, member: int, start: Callable[[], Worker], *, hung: float, waiting: int) -> None:
        self.member, self._start, self._hung = member, start, hung
        self._waiting = Waiting(waiting)
        self._changed = threading.Condition(self._waiting.lock)
        self._closed = self._unable = False
        self._courier: Courier | None = None
        self._reason = "its worker is starting"
        self.starts = 0
        self.seconds: deque[float] = deque(maxlen=1000)
        self._thread = threading.Thread(target=self._run, name=f"member-{member}", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether a worker takes questions."""
        courier = self._courier
        return courier is not None and courier.ready

    def wait(self, seconds: float) -> bool:
        """Wait until a worker takes questions, or none will soon; whether one does."""
        with self._changed:
            self._changed.wait_for(lambda: self.ready or self._unable or self._closed, seconds)
            return self.ready

    def ask(self, question: Question) -> None:
        """Never waits."""
        with self._changed:
            reason = "too many questions wait" if self.ready else self._reason
            if self.ready and self._waiting.put(question):
                return
        question.tell(self.member, reason)

    def interrupt(self) -> None:
        """End the worker; another is started."""
        courier = self._courier
        if courier is not None:
            courier.stop("its worker was interrupted")

    def stop(self) -> None:
        """Begin to end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the end; a thread that somebody's `start` or `end` holds is left to itself."""
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)
            if self._thread.is_alive():
                _log.warning("the worker of member %d does not end; it is left.", self.member)

    def _run(self) -> None:
        pause = _SHORTEST_PAUSE
        while not self._closed:
            begun = time.monotonic()
            reason, unable = self._one_worker()
            with self._changed:
                self._unable = unable
                if not self._closed and (reason != self._reason or not self._unable):
                    _log.warning("member %d: %s; another worker is started.", self.member, reason)
                self._reason = reason
                self._changed.notify_all()
                if self._unable:
                    pause = min(2 * pause, _LONGEST_UNABLE)
                elif time.monotonic() - begun > _LONGEST_PAUSE:
                    pause = _SHORTEST_PAUSE
                else:
                    pause = min(2 * pause, _LONGEST_PAUSE)
                self._changed.wait_for(lambda: self._closed, pause)

    def _one_worker(self) -> tuple[str, bool]:
        """Start one and look after it until it is gone; why it is, and whether its member cannot be loaded."""
        try:
            worker = self._start()
        except Exception as error:  # of any kind: it may be the user's
            return f"its worker cannot be started ({in_words(error)})", False
        self.starts += 1
        with self._changed:
            courier = Courier(self.member, worker, self._waiting, self._changed, hung=self._hung, seconds=self.seconds)
            self._courier = courier
            while courier.gone is None and not self._closed:
                now = time.monotonic()
                if courier.due is not None and now >= courier.due:
                    courier.stop("its worker hangs")
                else:
                    self._changed.wait((courier.due or now + self._hung) - now)
            courier.stop("the panel is closed")
            reason, unable = courier.gone or "", courier.unable
            left = self._waiting.clear()
        for question in left:
            question.tell(self.member, reason)
        try:
            worker.end()
        except Exception as error:
            _log.warning("the worker of member %d may go on: %s", self.member, in_words(error))
        return reason, unable
