"""Writes changed streams in the background: after so many updates, and after so many seconds at the latest."""

from __future__ import annotations

import logging
import threading
import time

from acclimate.serve.metrics import Metrics
from acclimate.serve.settings import Settings
from acclimate.serve.store import Store
from acclimate.serve.stream import Stream

__all__ = ["Persister"]

_log = logging.getLogger(__name__)


class Persister:
    """One thread that writes. What fails is told, counted and tried again."""

    def __init__(self, store: Store, settings: Settings, metrics: Metrics) -> None:
        self._store, self._settings, self._metrics = store, settings, metrics
        self._change = threading.Condition()
        self._due: dict[str, tuple[float, Stream]] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="acclimate-persist", daemon=True)

    def open(self) -> None:
        """Start."""
        self._thread.start()

    def note(self, stream: Stream) -> None:
        """A version was published."""
        now = time.monotonic()
        full = stream.unwritten >= self._settings.persist_every
        due = now if full else now + self._settings.persist_seconds
        with self._change:
            known = self._due.get(stream.name)
            if known is None or due < known[0]:
                self._due[stream.name] = (due, stream)
                self._change.notify()

    def write(self, stream: Stream) -> None:
        """Write now. Raises OSError."""
        with self._metrics.persist_seconds.time():
            self._store.save(stream)

    def close(self, streams: list[Stream]) -> None:
        """Stop, and write whatever has changed."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join()
        for stream in streams:
            if stream.unwritten:
                self._try(stream)

    def _work(self) -> None:
        while (stream := self._next()) is not None:
            self._try(stream)

    def _next(self) -> Stream | None:
        with self._change:
            while not self._closed:
                name, (due, stream) = min(
                    self._due.items(), key=lambda item: item[1][0], default=("", (float("inf"), None))
                )
                left = due - time.monotonic()
                if stream is not None and left <= 0:
                    del self._due[name]
                    return stream
                self._change.wait(None if stream is None else left)
            return None

    def _try(self, stream: Stream) -> None:
        try:
            self.write(stream)
        except OSError as error:
            self._metrics.unwritten.inc()
            _log.error("stream %s cannot be written: %s", stream.name, error)
            if not self._closed:
                with self._change:
                    self._due[stream.name] = (time.monotonic() + self._settings.persist_seconds, stream)
