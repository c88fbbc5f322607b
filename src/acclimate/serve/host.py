"""One stream at a time, against the folder: what a worker needs that any request may reach."""

from __future__ import annotations

import itertools
import math
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.serve.answering import Answering
from acclimate.serve.answers import Answer
from acclimate.serve.asked import Asked
from acclimate.serve.bodies import Reader
from acclimate.serve.lanes import Lanes
from acclimate.serve.learning import Learning
from acclimate.serve.metrics import Metrics
from acclimate.serve.overlay import Overlay
from acclimate.serve.packed import Packed
from acclimate.serve.settings import Settings
from acclimate.serve.store import Store
from acclimate.serve.stream import Stream, check_name, check_room

__all__ = ["StreamHost"]


class _Held(dict[str, Stream]):
    """The streams of calls that run, for what answers them."""

    def find(self, name: str) -> Stream:
        return self[name]

    def enter(self, stream: Stream) -> None:
        """Nothing: what is held exists."""


class StreamHost:
    """Answers batches of any stream, in any process, and lets the stream learn.

    Each call has its stream to itself: it locks it, takes up the newest version from the folder unless it has it at
    hand, answers and learns in one step, writes the new version and then lets go. So the streams' states live in the
    folder alone, hosts of several processes may be asked in turn, and a host that is killed loses nothing that it has
    answered. A server over the same folder keeps its streams locked: hosts are refused meanwhile.

    Arguments: `model`, the source, never changed; `settings`, with `state_dir`; `update` is "inline" or "off". Raises
    ValueError without a state folder, or for one of another model or method. Threads may share a host: calls for
    different streams wait for each other while the model works, not while they wait for a stream. A call costs the
    step and, where it has learned, the writing of a version with its fsyncs.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        folder = settings.state_dir
        if folder is None:
            raise ValueError("a host keeps streams in a folder. Give Settings a state_dir that all of them share.")
        update = "off" if settings.update == "off" else "inline"
        self.settings = settings = replace(settings, update=update, batch_window=0.0)
        self.metrics = Metrics()
        self.reader = Reader.of(model, settings.limits)
        self._overlay = Overlay(model, settings)
        self._store = Store(folder, self._overlay.identity(), settings.limits, slots=())
        learning = Learning(settings, self.metrics)
        self._lanes = Lanes[Asked]("host", lambda: lambda key: None, workers=1, per_lane=1, total=1)  # never opened
        self._held = _Held()
        self._answering = Answering(settings, self.metrics, self._held, self._lanes, learning, self._overlay)
        self._lock = threading.RLock()
        self._known: OrderedDict[str, tuple[tuple[bytes, int], Stream]] = OrderedDict()
        self._numbers, self._run = itertools.count(), secrets.token_hex(4)

    def answer(self, name: str, x: Tensor, *, learn: bool = True) -> Answer:
        """Answer a batch `[N, ...]`, and learn from it unless told otherwise. What was learned is written by then.

        Raises Refused for a batch that the model cannot take, and as `holding` does.
        """
        with self.holding(name):
            torch.set_num_threads(self.settings.threads)  # of this thread, whichever asks
            number = f"{self._run}-{next(self._numbers)}"
            asked = Asked(number, name, lambda: x, lambda answer: answer, learn, math.inf)
            with self._lock:
                self._lanes.put(name, asked)
                self._answering(name)
            return asked.future.result()

    @contextmanager
    def holding(self, name: str) -> Iterator[Stream]:
        """A stream, for its verbs (`rollback`, `reset`, `freeze`, `keep`, `status`), which nobody else has meanwhile.

        What has changed is written in the end. Raises Refused for an id that is no name, for a new stream beyond
        `limits.streams`, and where another worker has the stream for longer than `limits.deadline` seconds.
        """
        check_name(name)
        with self._store.holding(name, self.settings.limits.deadline):
            stream = self._held[name] = self._newest(name)
            try:
                before = stream.frozen, stream.names
                yield stream
                if stream.gone:
                    self._store.drop(stream)
                    return
                if stream.unwritten or before != (stream.frozen, stream.names):
                    self._store.save(stream)
                mark = self._store.mark(name)
                with self._lock:
                    self._known[name] = mark, stream
                    if len(self._known) > self.settings.limits.streams:
                        self._known.popitem(last=False)
            finally:
                del self._held[name]

    def _newest(self, name: str) -> Stream:
        """As the folder has it. What is at hand is forgotten until the call is over, lest a failure leave it behind."""
        store, adopt = self._store, self._adopt
        with self._lock:
            known = self._known.pop(name, None)
        if known is not None and known[0] == store.mark(name):
            return known[1]
        kept = store.folder(name).is_dir()
        if not kept:
            check_room(store.count(), self.settings.limits)
        log, fetch = store.log(name), lambda number: store.fetch(name, number, adopt)
        stream = Stream(name, self._overlay.first, self.settings.limits, log, fetch=fetch)
        if kept:
            store.load(name, adopt).give(stream)
        return stream

    def _adopt(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> Packed:
        with self._lock:
            return self._overlay.adopt(tensors, scalars)
