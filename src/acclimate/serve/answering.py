"""Answers: a worker takes what a stream has waiting, answers from its current version, and passes it on to learning."""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor

from acclimate.core.inputs import fit_rows
from acclimate.serve.answers import Answer, UpdateOutcome
from acclimate.serve.asked import Asked, Batch
from acclimate.serve.lanes import Lanes
from acclimate.serve.learning import Learning
from acclimate.serve.metrics import Metrics
from acclimate.serve.overlay import Answered, Overlay
from acclimate.serve.refused import Refused, too_late
from acclimate.serve.settings import Settings
from acclimate.serve.stream import Stream

__all__ = ["Answering"]

_log = logging.getLogger(__name__)


class Answering:
    """One worker. It answers one stream at a time, and only ever from a published version."""

    def __init__(
        self, settings: Settings, metrics: Metrics, lanes: Lanes[Asked], learning: Learning, overlay: Overlay
    ) -> None:
        torch.set_num_threads(settings.threads)
        self._settings, self._metrics = settings, metrics
        self._lanes, self._learning, self._overlay = lanes, learning, overlay
        self._hashed = settings.state_dir is not None

    def __call__(self, key: str) -> None:
        start = time.perf_counter()
        group = self._gather(key)
        if not group:
            return
        try:
            self._answer(group)
        except Refused as refused:
            self._fail(group, refused)
        except ValueError as error:
            what = Refused(422, found=str(error), expected="a batch that the model takes", do="Mend the batch.")
            self._fail(group, what)
        except OSError as error:
            self._metrics.unwritten.inc()
            _log.error("the audit log of %s cannot be written: %s", key, error)
            what = Refused(
                503,
                found=f"the audit log cannot be written: {error}.",
                expected="room in the state folder",
                do="Tell who runs the server.",
                retry_after=10,
            )
            self._fail(group, what)
        except Exception as error:
            _log.exception("a request of stream %s failed", key)
            self._fail(group, error)
        self._metrics.answer_seconds.observe(time.perf_counter() - start)

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
        stream, version = group[0].stream, group[0].stream.current
        x = group[0].batch() if len(group) == 1 else torch.cat([asked.batch() for asked in group])
        settings = self._settings
        learn = group[0].learn and settings.update != "off"
        batch = Batch.of(group, x, hashed=self._hashed)
        start = time.perf_counter()
        inline = learn and settings.update == "inline" and not stream.frozen
        stepped = self._overlay.step(version.state, x) if inline else None
        answered = stepped.answered if stepped else self._overlay.answer(version.state, x)
        seconds = time.perf_counter() - start
        alive = [asked.claim() for asked in group]
        if not any(alive):
            return
        update: UpdateOutcome = "off"
        if stepped is not None:
            published = self._learning.conclude(batch, version, stepped, seconds) if all(alive) else None
            update = "dropped" if published is None else "done"
        elif learn and stream.frozen:
            update = "frozen"
        elif learn:
            update = "queued" if all(alive) and self._learning.offer(batch) else "dropped"
        self._note(stream, answered, batch)
        stream.log("answer", version=version.number, batch=batch.requests[0], update=update, **batch.line())
        starts = [sum(batch.rows[:number]) for number in range(len(group))]
        for asked, first, rows in zip(group, starts, batch.rows, strict=True):
            part = answered if len(group) == 1 else _part(answered, x, first, rows)
            answer = Answer(
                stream.name,
                version.number,
                part.logits,
                part.held,
                part.held_at_source,
                update,
                asked.id,
                batch.requests[0],
            )
            asked.give(answer)

    def _note(self, stream: Stream, answered: Answered, batch: Batch) -> None:
        counts, rows = stream.counts, sum(batch.rows)
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
