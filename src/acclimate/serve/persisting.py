"""Writes changed streams in the background: after so many updates, and after so many seconds at the latest."""

from __future__ import annotations

import logging
import math
import threading
import time

from acclimate.serve.metrics import Metrics
from acclimate.serve.settings import Settings
from acclimate.serve.store import Store
from acclimate.serve.stream import Stream

__all__ = ["Persister"]

_log = logging.getLogger(__name__)

_STUCK = 10.0


class Persister:
    """One thread that writes. What fails is told, counted and tried again."""

    def __init__(self, store: Store, settings: Settings, metrics: Metrics) -> None:
        self._store, self._settings, self._metrics = store, settings, metrics
        self._change = threading.Condition()
        self._due: dict[Stream, float] = {}
        self._closed = False
        self._tried = 0
        self._thread = threading.Thread(target=self._work, name="acclimate-persist", daemon=True)

    def open(self) -> None:
        """Start."""
        self._thread.start()

    def note(self, stream: Stream) -> None:
        """A version was published."""
        full = stream.unwritten >= self._settings.persist_every
        self._plan(stream, 0.0 if full else self._settings.persist_seconds)

    def _plan(self, stream: Stream, seconds: float) -> None:
        due = time.monotonic() + seconds
        with self._change:
            if due < self._due.get(stream, math.inf):
                self._due[stream] = due
                self._change.notify()

    def write(self, stream: Stream) -> None:
        """Write now. Raises OSError; then it is tried again."""
        try:
            with self._metrics.persist_seconds.time():
                self._store.save(stream)
        except BaseException:
            self._metrics.unwritten.inc()
            self._plan(stream, self._settings.persist_seconds)
            raise

    def close(self, streams: list[Stream]) -> list[str]:
        """Write whatever has changed, and stop. Gives the streams that could not be written.

        A disk that takes longer than ten seconds for one of them is not waited for.
        """
        with self._change:
            for stream in streams:
                if stream.unwritten:
                    self._due[stream] = 0.0
            self._closed = True
            self._change.notify()
        tried = -1
        while self._thread.is_alive() and tried != self._tried:
            tried = self._tried
            self._thread.join(_STUCK)
        with self._change:
            return sorted({stream.name for stream in (*streams, *self._due) if stream.unwritten or stream in self._due})

    def _work(self) -> None:
        while (stream := self._next()) is not None:
            self._try(stream)
            self._tried += 1
        with self._change:
            last = list(self._due)
        for stream in last:
            if self._try(stream):
                with self._change:
                    del self._due[stream]
            self._tried += 1

    def _next(self) -> Stream | None:
        with self._change:
            while not self._closed:
                stream = min(self._due, key=self._due.__getitem__, default=None)
                left = None if stream is None else self._due[stream] - time.monotonic()
                if stream is not None and left is not None and left <= 0:
                    del self._due[stream]
                    return stream
                self._change.wait(left)
            return None

    def _try(self, stream: Stream) -> bool:
        try:
            self.write(stream)
        except OSError as error:
            _log.error("stream %s cannot be written: %s", stream.name, error)
        except Exception:  # this thread writes for all streams
            _log.exception("stream %s cannot be written", stream.name)
        else:
            return True
        return False
