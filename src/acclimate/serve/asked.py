"""A request on its way to its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from acclimate.serve.answers import Answer
from acclimate.serve.bodies import content_hash
from acclimate.serve.stream import Stream

__all__ = ["Asked", "Batch"]


@dataclass(slots=True, eq=False)
class Asked:
    """One request to the stream `name`. `read` gives its batch, `render` makes of the answer what `future` gets."""

    id: str
    name: str
    read: Callable[[], Tensor]
    render: Callable[[Answer], Any]
    learn: bool
    deadline: float
    future: Future[Any] = field(default_factory=Future[Any])
    _fate: threading.Lock = field(default_factory=threading.Lock)
    _batch: Tensor | None = None

    def claim(self) -> bool:
        """Take the right to decide what becomes of it, once: to answer and learn it, or to give it up.

        False where that has been decided, so that a request which was given up leaves no trace.
        """
        return self._fate.acquire(blocking=False)

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def batch(self) -> Tensor:
        """Its batch, read once. Raises Refused."""
        if self._batch is None:
            self._batch = self.read()
        return self._batch

    def give(self, answer: Answer) -> None:
        """Answer."""
        if self.future.set_running_or_notify_cancel():
            try:
                self.future.set_result(self.render(answer))
            except Exception as error:
                self.future.set_exception(error)

    def fail(self, error: BaseException) -> None:
        """Answer with an error, unless it has been given up."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What is learned in one step: the rows of one request, or of several in the order of `requests`."""

    stream: Stream
    x: Tensor
    requests: tuple[str, ...]
    rows: tuple[int, ...]
    hashes: tuple[str, ...]
    reserved: float = 0.0

    @classmethod
    def of(cls, stream: Stream, group: list[Asked], x: Tensor, *, hashed: bool) -> Batch:
        batches = [asked.batch() for asked in group]
        return cls(
            stream,
            x,
            tuple(asked.id for asked in group),
            tuple(len(batch) for batch in batches),
            tuple(content_hash(batch) for batch in batches) if hashed else (),
        )

    def line(self) -> dict[str, Any]:
        """Its part of a line of the audit log."""
        return {"requests": self.requests, "rows": self.rows, "inputs": self.hashes}
