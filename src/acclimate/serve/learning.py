"""Updates: what is learned from, in which order, at what cost, and how an update becomes a version."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from acclimate.serve.asked import Batch
from acclimate.serve.lanes import Full, Lanes
from acclimate.serve.metrics import Metrics
from acclimate.serve.overlay import Stepped
from acclimate.serve.packed import Packed
from acclimate.serve.settings import Settings
from acclimate.serve.stream import Stream, Version

__all__ = ["Learner", "Learning", "step_back"]

_log = logging.getLogger(__name__)


class Learner(Protocol):
    """Makes steps: an overlay, or one in a process of its own."""

    def step(self, state: Packed, x: Tensor) -> Stepped: ...


def step_back() -> None:
    """Let every other thread of the machine come before this one, where the system knows threads apart."""
    if sys.platform.startswith("linux"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


class Learning:
    """The queue of batches to learn from, and the thread that learns.

    A batch has `settings.update_budget` milliseconds; what an update is expected to cost beyond them is saved up by
    leaving batches out.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._learner: Learner | None = None
        self._expected = 0.0
        limits = settings.limits
        self.lanes = Lanes[Batch]("learn", self._start, workers=1, per_lane=limits.stream_updates, total=limits.updates)

    def open(self, learner: Learner) -> None:
        """Learn from now on, with this learner, in one thread."""
        self._learner = learner
        self.lanes.open()

    def offer(self, batch: Batch) -> bool:
        """Queue a batch; False where it is left out because learning has fallen behind."""
        stream, budget = batch.stream, self._settings.update_budget
        if budget is not None:
            stream.credit = min(stream.credit + budget, budget + self._expected)
            if self._expected > stream.credit:
                return self._left_out(batch)
            batch = replace(batch, reserved=self._expected)
            stream.credit -= batch.reserved
        try:
            self.lanes.put(stream.name, batch)
        except Full:
            return self._left_out(batch)
        return True

    def _left_out(self, batch: Batch) -> bool:
        self.drop(batch, "fell behind")
        return False

    def drop(self, batch: Batch, why: str) -> None:
        """A batch that is not learned."""
        batch.stream.counts.dropped += 1
        batch.stream.credit += batch.reserved
        self._metrics.updates.labels("dropped").inc()
        self._tell(batch.stream, "dropped", why=why, **batch.line())

    def _tell(self, stream: Stream, event: str, **line: Any) -> None:
        """A line about what was not learned. Where it cannot be written, that is counted, and no more."""
        try:
            stream.log(event, **line)
        except OSError as error:
            self._unlogged(stream, error)

    def _unlogged(self, stream: Stream, error: OSError) -> None:
        self._metrics.unwritten.inc()
        _log.error("the audit log of %s cannot be written: %s", stream.name, error)

    def forget(self, stream: Stream, why: str) -> None:
        """Drop what waits in a stream's queue."""
        for batch in self.lanes.clear(stream.name):
            self.drop(batch, why)

    def _start(self) -> Learning:
        torch.set_num_threads(self._settings.threads)
        step_back()
        return self

    def __call__(self, key: str) -> None:
        batch = self.lanes.take(key)
        if batch is None or self._learner is None:
            return
        stream = batch.stream
        base, start = stream.current, time.perf_counter()
        if stream.frozen or stream.gone:
            self.drop(batch, "frozen" if stream.frozen else "gone")
            return
        try:
            stepped = self._learner.step(base.state, batch.x)
        except Exception as error:
            _log.warning("an update of stream %s failed: %s", stream.name, error)
            self._metrics.updates.labels("failed").inc()
            stream.credit += max(0.0, batch.reserved - (time.perf_counter() - start) * 1e3)
            self._tell(stream, "failed", why=str(error), before=base.number, **batch.line())
            return
        taken = (time.perf_counter() - start) * 1e3
        self._expected = taken if not self._expected else 0.8 * self._expected + 0.2 * taken
        stream.credit += batch.reserved - taken if self._settings.update_budget is not None else 0.0
        self.conclude(batch, base, stepped, taken / 1e3)

    def conclude(self, batch: Batch, base: Version, stepped: Stepped, seconds: float) -> Version | None:
        """Publish what a step has made of a version, and note what it was. None where it was not published.

        What cannot be logged is not published.
        """
        stream, state = batch.stream, stepped.state
        outcome: str = stepped.outcome
        line = {**batch.line(), "reason": stepped.reason} if stepped.reason else batch.line()
        most = self._settings.limits.state_bytes
        if state is not None and (size := state.bytes) > most:
            state, outcome = None, "refused"
            line["reason"] = f"the state would take {size} bytes, the limit is {most}"
        try:
            version = stream.learned(base, state, outcome=outcome, **line)
            outcome = "superseded" if version is None else outcome
        except OSError as error:
            self._unlogged(stream, error)
            version, outcome = None, "failed"
        counts = stream.counts
        counts.updates += outcome == "done"
        counts.idle += outcome == "idle"
        counts.refused += outcome == "refused"
        counts.dropped += version is None
        self._metrics.updates.labels(outcome).inc()
        self._metrics.update_seconds.observe(seconds)
        stream.signals = stepped.values
        share = stepped.answered.held / len(batch.x)
        stream.history.add(
            {
                **stepped.values,
                "time": time.time(),
                "version": stream.current.number,
                "updated": float(outcome == "done"),
                "held": share,
            }
        )
        return version
