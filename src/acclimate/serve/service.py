"""The server without HTTP: streams, their answers, and the verbs that control them."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import acclimate
from acclimate.serve.answering import Answering
from acclimate.serve.answers import Answer
from acclimate.serve.asked import Asked
from acclimate.serve.bodies import Reader
from acclimate.serve.lanes import Full, Lanes
from acclimate.serve.learning import Learner, Learning
from acclimate.serve.metrics import Metrics
from acclimate.serve.overlay import Overlay
from acclimate.serve.packed import Packed
from acclimate.serve.persisting import Persister
from acclimate.serve.refused import Refused, away, full, unlogged
from acclimate.serve.registry import Registry
from acclimate.serve.remote import Remote
from acclimate.serve.settings import Settings
from acclimate.serve.slots import slots_of
from acclimate.serve.store import Restored, Store
from acclimate.serve.stream import Stream, Version, absent

__all__ = ["Service"]

_log = logging.getLogger(__name__)


class Service:
    """Many adaptations of one model.

    Arguments: `settings`; `model`, the source, which is never changed and shared by all streams. `open` before use,
    `close` afterwards; both may take seconds.
    """

    def __init__(self, settings: Settings, model: nn.Module) -> None:
        self.settings, self.model, self.metrics = settings, model, Metrics()
        self.reason = "the server is starting"
        self.failure: Exception | None = None
        self._open = False
        self._numbers, self._run = itertools.count(), secrets.token_hex(4)
        self._end: float | None = None
        self.asked = 0
        """Requests to answer that HTTP has taken and not answered yet."""
        limits = settings.limits
        self._registry = Registry(self._new, limits)
        self.reader = Reader.of(model, limits)
        self.learning = Learning(settings, self.metrics)
        self._spare = deque[Overlay](maxlen=1)
        self._store: Store | None = None
        self._persister: Persister | None = None
        self._remote: Remote | None = None
        self._clerk: Overlay | None = None
        self._clerk_lock = threading.Lock()
        self.lanes = Lanes[Asked](
            "answer",
            self._start_worker,
            workers=settings.workers,
            per_lane=limits.stream_queue,
            total=limits.queue,
            window=settings.batch_window / 1e3,
        )

    # -- life ------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._open and self._end is None

    def open(self) -> None:
        """Build what works, take up what was kept, and get ready, unless told to end meanwhile.

        ValueError for a state of something else.
        """
        overlay = Overlay(self.model, self.settings)
        self.identity = overlay.identity()
        self._first = overlay.first
        if self.settings.state_dir is not None:
            self._take_up(self._open_store(self.settings.state_dir), overlay)
        if self._end is not None:
            return
        self._spare.append(overlay)
        if self.settings.update == "background":
            self.learning.open(self._learner())
        self.lanes.open()
        self._watch()
        self._open = True
        if self._end is None:
            self.reason = ""
        verbs = "off, for want of a token" if self.settings.token is None else "open to the token"
        what = self.identity["method"]["name"], type(self.model).__name__, len(self._registry), verbs
        _log.info("ready: %s over %s; streams taken up: %d; control verbs: %s", *what)

    def _learner(self) -> Learner:
        if self.settings.updater == "thread":
            return Overlay(self.model, self.settings)
        self._remote = Remote(self.settings, self.identity)
        return self._remote

    def _open_store(self, folder: Path) -> Store:
        return Store(folder, self.identity, self.settings.limits, slots_of(*self.settings.share))

    def _take_up(self, store: Store, overlay: Overlay) -> None:
        self._store = store
        self._persister = Persister(store, self.settings, self.metrics)
        self._clerk = Overlay(self.model, self.settings)
        names = store.names()
        try:
            for number, name in enumerate(names):
                if self._end is not None:
                    break
                self.reason = f"the server reads the state of its streams: {number} of {len(names)}"
                self._registry.take_up(self._restored(store.load(name, overlay.adopt)))
        except BaseException:
            store.close()
            raise
        self._persister.open()

    def _restored(self, found: Restored) -> Stream:
        stream = self._new(found.name)
        try:
            found.give(stream)
        except OSError as error:
            self.metrics.unwritten.inc()
            _log.error("the audit log of %s cannot be written: %s", found.name, error)
        self.metrics.damaged.inc(found.damaged)
        return stream

    def _new(self, name: str) -> Stream:
        limits, store, persister = self.settings.limits, self._store, self._persister
        if store is None or persister is None:
            return Stream(name, self._first, limits, lambda line: None)
        return Stream(name, self._first, limits, store.log(name), persister.note, lambda n: self._fetch(name, n))

    def _fetch(self, name: str, number: int) -> Packed:
        assert self._store is not None and self._clerk is not None
        with self._clerk_lock:
            return self._store.fetch(name, number, self._clerk.adopt)

    def _start_worker(self) -> Callable[[str], None]:
        try:
            overlay = self._spare.pop()
        except IndexError:
            overlay = Overlay(self.model, self.settings)
        return Answering(self.settings, self.metrics, self._registry, self.lanes, self.learning, overlay)

    def _watch(self) -> None:
        metrics = self.metrics
        metrics.server.info(
            {
                "acclimate": acclimate.__version__,
                "torch": torch.__version__,
                "model": type(self.model).__name__,
                "method": self.identity["method"]["name"],
            }
        )
        metrics.watch(metrics.ready, lambda: float(self.ready))
        metrics.watch(metrics.waiting, lambda: float(len(self.lanes)), queue="answers")
        metrics.watch(metrics.waiting, lambda: float(len(self.learning.lanes)), queue="updates")
        metrics.watch(metrics.state_bytes, lambda: float(sum(stream.bytes for stream in self.streams())))
        for state in ("adapting", "held at source", "frozen"):
            metrics.watch(metrics.streams, lambda state=state: self._count(state), state=state)

    def _count(self, state: str) -> float:
        return float(sum(stream.condition == state for stream in self.streams()))

    def drain(self, seconds: float | None = None) -> None:
        """Take no more requests, and finish within so many seconds, `limits.drain` if None."""
        if self._end is None:
            self._end = time.monotonic() + (self.settings.limits.drain if seconds is None else seconds)
            self.reason = "the server is about to end"

    @property
    def left(self) -> float:
        """Seconds to finish in, once told to end."""
        now = time.monotonic()
        return max(0.0, (self._end or now + self.settings.limits.drain) - now)

    @property
    def drained(self) -> bool:
        """Whether it takes no more requests, and all that it has taken are answered or have waited for too long."""
        if self._end is None:
            return False
        return not self.left or (not self.asked and self.lanes.settle(0.0))

    def close(self) -> None:
        """Finish what was begun, at most `limits.drain` seconds after `drain`, and write what was learned."""
        self.drain()
        for lanes in (self.lanes, self.learning.lanes):
            lanes.settle(self.left)
        if self._remote is not None:
            self._remote.end()
        for asked in self.lanes.close():
            asked.claim()
            asked.fail(away(self.reason))
        for batch in self.learning.lanes.close():
            self.learning.drop(batch, "the server ended")
        if self._remote is not None:
            self._remote.close()
        if self._persister is not None and self._store is not None:
            if unwritten := self._persister.close(self.streams()):
                self.failure = self.failure or OSError(
                    f"{len(unwritten)} streams could not be written, {unwritten[0]} among them: what they have learned "
                    "since they were last written is lost. The log says why; mend it before the next start."
                )
            self._store.close()

    # -- answering -------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Raises Refused where a request cannot even be read: not ready, or full."""
        if not self.ready:
            raise away(self.reason)
        if max(len(self.lanes), self.asked) >= self.settings.limits.queue:
            raise full(self.settings.limits)

    def ask(
        self,
        name: str,
        read: Callable[[], Tensor],
        *,
        learn: bool = True,
        render: Callable[[Answer], Any] = lambda a: a,
    ) -> Asked:
        """Queue a request. Its future gets what `render` makes of the answer, or an exception.

        `read` gives the batch; it is called by the worker. Raises Refused where there is no room.
        """
        self.admit()
        self._registry.check(name)
        number = f"{self._run}-{next(self._numbers)}"
        asked = Asked(number, name, read, render, learn, time.monotonic() + self.settings.limits.deadline)
        try:
            self.lanes.put(name, asked)
        except Full as none:
            if none.everywhere:
                raise full(self.settings.limits) from none
            raise Refused(
                429,
                found=f"{self.settings.limits.stream_queue} requests of stream {name} that wait.",
                expected="room in this stream's queue",
                do="Wait for answers before you send more.",
                retry_after=1,
            ) from none
        return asked

    def predict(self, name: str, x: Tensor, *, learn: bool = True) -> Future[Answer]:
        """Queue a batch `[N, ...]`; the future's result is its `Answer`. Raises Refused as `ask`."""
        return self.ask(name, lambda: x, learn=learn).future

    # -- looking ---------------------------------------------------------------------------------------

    def streams(self) -> list[Stream]:
        """All of them, by name."""
        return self._registry.all()

    def stream(self, name: str) -> Stream:
        """One of them. Raises Refused where it does not exist."""
        return self._registry.get(name)

    def info(self) -> dict[str, Any]:
        """What is served, as JSON values."""
        if not self.ready:
            raise away(self.reason)
        limits = self.settings.limits
        return {
            "model": type(self.model).__name__,
            "fingerprint": self.identity["base"],
            "method": self.identity["method"],
            "answer": self.identity["answer"],
            "seed": self.identity["seed"],
            "guard": self.identity.get("guard"),
            "update": self.settings.update,
            "acclimate": acclimate.__version__,
            "torch": torch.__version__,
            "limits": {name: getattr(limits, name) for name in vars(limits)},
        }

    # -- control ---------------------------------------------------------------------------------------

    def rollback(self, name: str, number: int) -> Version:
        """Return to a kept version; what waits to be learned is dropped. Raises Refused."""
        return self._command(name, "rollback", lambda stream: stream.rollback(number))

    def reset(self, name: str) -> Version:
        """Return to the source; what waits to be learned is dropped. Raises Refused."""
        return self._command(name, "reset", lambda stream: stream.reset())

    def freeze(self, name: str, frozen: bool) -> Version:
        """Learn nothing from now on, or learn again. Raises Refused."""

        def do(stream: Stream) -> Version:
            stream.freeze(frozen)
            return stream.current

        return self._command(name, "freeze", do, forget=frozen)

    def keep(self, name: str, label: str) -> Version:
        """Keep the current version under a name. Raises Refused."""
        return self._command(name, "keep", lambda stream: stream.keep(label), forget=False)

    def delete(self, name: str) -> Version:
        """Forget a stream and its versions; the last one is given back. Raises Refused.

        The name is free again when nothing of the stream is left.
        """
        stream = self.stream(name)
        stream.end()
        self.learning.forget(stream, "delete")
        if self._store is not None:
            try:
                self._store.drop(stream)
            except OSError as error:
                self.metrics.unwritten.inc()
                raise _unwritten(
                    "the stream has ended, but its files cannot be removed", error, "Ask again."
                ) from error
        if not self._registry.leave(stream):
            raise absent(name)
        self.metrics.controls.labels("delete").inc()
        return stream.current

    def _command(self, name: str, verb: str, do: Callable[[Stream], Version], *, forget: bool = True) -> Version:
        stream = self.stream(name)
        try:
            version = do(stream)
        except OSError as error:
            self.metrics.unwritten.inc()
            raise unlogged(error) from error
        if forget:
            self.learning.forget(stream, verb)
        self.metrics.controls.labels(verb).inc()
        if self._persister is not None:
            try:
                self._persister.write(stream)  # what was commanded holds after a crash as well
            except OSError as error:
                do_this = "It is tried again until it works; /metrics tells of each failure."
                raise _unwritten(f"{verb} holds, but not yet after a crash", error, do_this) from error
        return version


def _unwritten(what: str, error: OSError, do: str) -> Refused:
    return Refused(500, found=f"{what}: {error}.", expected="a state folder that takes it", do=do)
