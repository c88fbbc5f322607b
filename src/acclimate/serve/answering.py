"""Answers: a worker takes what a stream has waiting, answers from its current version, and passes it on to learning."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.inputs import fit_rows
from acclimate.serve.answers import Answer, UpdateOutcome
from acclimate.serve.asked import Asked, Batch
from acclimate.serve.lanes import Lanes
from acclimate.serve.learning import Learning
from acclimate.serve.metrics import Metrics
from acclimate.serve.overlay import Answered, Overlay, Stepped
from acclimate.serve.refused import Refused, too_late, unlogged
from acclimate.serve.registry import Streams
from acclimate.serve.settings import Settings
from acclimate.serve.stream import Version

__all__ = ["Answering"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """What a forward has made of a batch: its answer from this version, and with `stepped` the step that gave it."""

    version: Version
    batch: Batch
    answered: Answered
    stepped: Stepped | None
    update: UpdateOutcome
    seconds: float


class Answering:
    """One worker. It answers one stream at a time, and only ever from a published version."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        streams: Streams,
        lanes: Lanes[Asked],
        learning: Learning,
        overlay: Overlay,
    ) -> None:
        torch.set_num_threads(settings.threads)
        self._settings, self._metrics, self._streams = settings, metrics, streams
        self._lanes, self._learning, self._overlay = lanes, learning, overlay
        self._hashed = settings.state_dir is not None

    def __call__(self, key: str) -> None:
        start = time.perf_counter()
        group = self._gather(key)
        if group:
            self._try(group)
            self._metrics.answer_seconds.observe(time.perf_counter() - start)

    def _try(self, group: list[Asked]) -> None:
        try:
            self._answer(group)
        except Refused as refused:
            self._fail(group, refused)
        except ValueError as error:
            what = Refused(422, found=str(error), expected="a batch that the model takes", do="Mend the batch.")
            self._fail(group, what)
        except OSError as error:
            self._metrics.unwritten.inc()
            _log.error("the audit log of %s cannot be written: %s", group[0].name, error)
            self._fail(group, unlogged(error))
        except Exception as error:
            _log.exception("a request of stream %s failed", group[0].name)
            self._fail(group, error)

    def _fail(self, group: list[Asked], error: Exception) -> None:
        for asked in group:
            asked.claim()
            asked.fail(error)

    def _gather(self, key: str) -> list[Asked]:
        """The next request of a stream, with those behind it that can share its forward."""
        group, rows = list[Asked](), 0
        while (asked := self._lanes.take(key)) is not None:
            x = self._readable(asked)
            if x is None:
                continue
            fits = not group or (
                asked.learn == group[0].learn
                and x.shape[1:] == group[0].batch().shape[1:]
                and x.dtype == group[0].batch().dtype
                and rows + len(x) <= self._settings.limits.rows
            )
            if not fits:
                self._lanes.back(key, asked)
                break
            group.append(asked)
            rows += len(x)
            if not self._settings.batch_window:
                break
        return group

    def _readable(self, asked: Asked) -> Tensor | None:
        if asked.late or asked.future.done():
            if asked.claim():
                asked.fail(too_late(self._settings.limits))
            return None
        try:
            return asked.batch()
        except Exception as error:
            self._fail([asked], error)
            return None

    def _answer(self, group: list[Asked]) -> None:
        try:
            made = self._forward(group)
        except Exception:
            if len(group) == 1:
                raise
            for asked in group:  # one of them has spoiled it for all
                self._try([asked])
            return
        alive = [asked.claim() for asked in group]
        if any(alive):
            self._conclude(group, made, learn=all(alive))

    def _forward(self, group: list[Asked]) -> _Made:
        stream = self._streams.find(group[0].name)
        version = stream.current
        x = group[0].batch() if len(group) == 1 else torch.cat([asked.batch() for asked in group])
        batch = Batch.of(stream, group, x, hashed=self._hashed)
        update: UpdateOutcome = "off"
        if group[0].learn and self._settings.update != "off":
            update = "frozen" if stream.frozen else "done" if self._settings.update == "inline" else "queued"
        start = time.perf_counter()
        stepped = self._overlay.step(version.state, x) if update == "done" else None
        answered = stepped.answered if stepped else self._overlay.answer(version.state, x)
        return _Made(version, batch, answered, stepped, update, time.perf_counter() - start)

    def _conclude(self, group: list[Asked], made: _Made, *, learn: bool) -> None:
        """Log, learn and answer, in this order: what cannot be logged is refused, and then nothing was learned."""
        batch, answered, update = made.batch, made.answered, made.update
        stream, version = batch.stream, made.version.number
        self._streams.enter(stream)
        if not learn and update in ("done", "queued"):
            update = "dropped"
        stream.log("answer", version=version, batch=batch.requests[0], update=update, **batch.line())
        if update == "done" and made.stepped is not None:
            published = self._learning.conclude(batch, made.version, made.stepped, made.seconds)
            update = "dropped" if published is None else update
        elif update == "queued":
            update = update if self._learning.offer(batch) else "dropped"
        self._note(batch, answered)
        first = 0
        for asked, rows in zip(group, batch.rows, strict=True):
            part = answered if len(group) == 1 else _part(answered, batch.x, first, rows)
            first += rows
            answer = Answer(
                stream.name, version, part.logits, part.held, part.held_at_source, update, asked.id, batch.requests[0]
            )
            asked.give(answer)

    def _note(self, batch: Batch, answered: Answered) -> None:
        stream, rows = batch.stream, sum(batch.rows)
        counts = stream.counts
        counts.requests += len(batch.requests)
        counts.batches += 1
        counts.rows += rows
        counts.held += answered.held
        stream.held_at_source = answered.held_at_source
        self._metrics.batches.inc()
        self._metrics.rows.labels("source").inc(answered.held)
        self._metrics.rows.labels("adapted").inc(rows - answered.held)


def _part(answered: Answered, x: Tensor, first: int, rows: int) -> Answered:
    """What one request of a merged batch is told."""
    logits = answered.logits[first : first + rows]
    if answered.held in (0, len(x)):
        return Answered(logits, rows if answered.held else 0, answered.held_at_source)
    fit, _ = fit_rows(x)
    held = 0 if fit is None else rows - int(fit[first : first + rows].sum())
    return Answered(logits, held, answered.held_at_source)
