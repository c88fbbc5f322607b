"""One worker's questions, carried there and back."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress

from torch import Tensor

from acclimate.fields.recommendation.serving.questions import Question, Waiting
from acclimate.fields.recommendation.serving.wire import Wire, read_answer
from acclimate.fields.recommendation.serving.worker import READY, UNABLE, in_words
from acclimate.fields.recommendation.serving.workers import Worker

__all__ = ["Courier"]

_LOADING = 120.0


class Courier:
    """Carries questions to a worker in a thread of its own, since sending and receiving may both wait for ever.

    Whoever looks after it ends the worker once `due` has passed, which frees the thread, and calls `stop`.

    Arguments: `member`, its place; `waiting`, the questions; `changed`, a condition on their lock, notified at all that
    changes; `hung`, seconds an answer may take; `seconds`, where the worker's own times are kept.

    Attributes: `ready`, whether questions are carried; `gone`, why no longer; `unable`, whether that is since the
    member cannot be loaded; `due`, when the worker has to have answered.
    """

    def __init__(
        self,
        member: int,
        worker: Worker,
        waiting: Waiting,
        changed: threading.Condition,
        *,
        hung: float,
        seconds: deque[float],
    ) -> None:
        self._member, self._waiting, self._changed = member, waiting, changed
        self._hung, self._seconds = hung, seconds
        self.ready = self.unable = False
        self.gone: str | None = None
        self.due: float | None = time.monotonic() + _LOADING
        self._carried: Question | None = None
        threading.Thread(target=self._run, args=(worker.wire,), name=f"courier-{member}", daemon=True).start()

    def stop(self, reason: str) -> None:
        """Carry no more; the first reason stays, and is told of the question that is on its way."""
        with self._changed:
            self.gone, self.ready = self.gone or reason, False
            carried, self._carried = self._carried, None
            self._changed.notify_all()
        if carried is not None:
            carried.tell(self._member, self.gone)

    def _run(self, wire: Wire) -> None:
        try:
            self._greet(wire.recv_bytes())
            while (question := self._waiting.take(lambda: self.gone is not None)) is not None:
                self._carry(wire, question)
        except Exception as error:  # of any kind: wires and workers are others'
            self.stop(f"its worker is gone ({in_words(error)})")
        finally:
            with suppress(Exception):
                wire.close()

    def _greet(self, said: bytes) -> None:
        if said.startswith(UNABLE):
            self.unable = True
            self.stop(f"it cannot be loaded ({said[len(UNABLE) :].decode(errors='replace')})")
        elif said != READY:
            raise ValueError(f"it began with {said[:20]!r} instead of {READY!r}")
        with self._changed:
            if self.gone is None:
                self.ready, self.due = True, None
                self._changed.notify_all()

    def _carry(self, wire: Wire, question: Question) -> None:
        if time.monotonic() >= question.deadline:  # nobody waits for it
            question.tell(self._member, "too late")
            return
        with self._changed:
            self._carried, self.due = question, time.monotonic() + self._hung
        wire.send_bytes(question.data)
        number, answer, seconds = read_answer(wire.recv_bytes())
        if number != question.number:
            raise ValueError(f"it answered question {number} instead of {question.number}")
        if isinstance(answer, Tensor) and len(answer) != question.rows:
            raise ValueError(f"it gave {len(answer)} numbers for {question.rows} rows")
        with self._changed:
            if self.gone is not None:
                return
            self._carried = self.due = None
        self._seconds.append(seconds)
        if isinstance(answer, Tensor) and not bool(answer.isfinite().all()):
            answer = "its logits are not finite"
            question.tell(self._member, answer)
        else:
            question.tell(self._member, answer, refused=isinstance(answer, str))
