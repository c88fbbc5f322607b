"""One method under one seed: answering, scoring, timing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from acclimate import Adapted
from acclimate.core.output import find_logits
from acclimate.experiment.domains import DomainTally
from acclimate.experiment.pace import MISSED, Pace
from acclimate.experiment.rows import BatchRow, UnitRow, pack_bits
from acclimate.streams import Batch

__all__ = ["Unit", "mistakes"]


def mistakes(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which answers are wrong and which are scored, as booleans of the labels' shape; -1 is not scored.

    ValueError if the answers do not belong to the labels.
    """
    answers = logits.detach().argmax(1).cpu()
    if answers.shape != labels.shape:
        raise ValueError(
            f"the model answers with {list(logits.shape)}, which gives {list(answers.shape)} predictions for labels "
            f"of shape {list(labels.shape)}. Expected logits [N, C] for N labels: take a model for this task."
        )
    scored = labels >= 0
    return (answers != labels) & scored, scored


class Unit:
    """Carries one adapted model through a stream. The clock runs only while the model answers.

    `tally` counts errors by domain, `pace` decides which batches arrive too early to be learned from.
    """

    def __init__(
        self,
        label: str,
        seed: int,
        adapted: Adapted,
        device: str = "cpu",
        *,
        tally: DomainTally | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.label = label
        self.seed = seed
        self.tally = tally
        self._adapted = adapted
        self._pace = pace
        self._device = torch.device(device)
        self._batches = self._scored = self._errors = 0
        self._seconds = 0.0
        self._sample: Tensor | None = None

    @property
    def error(self) -> float | None:
        """Error so far in percent; None before the first scored sample."""
        return 100 * self._errors / self._scored if self._scored else None

    def answer(self, batch: Batch) -> BatchRow:
        """Answer a batch and score the answer."""
        images = batch.images.to(self._device)
        if self._sample is None:
            self._sample = images
        with self._pace.batch() if self._pace is not None else nullcontext(False) as missed:
            start = self._clock()
            output = self._adapted(images)
            seconds = self._clock() - start
        wrong, scored = mistakes(find_logits(output), batch.labels)
        if self.tally is not None:
            self.tally.add(batch, wrong, scored)
        report = self._adapted.last
        assert report is not None
        self._batches += 1
        self._scored += int(scored.sum())
        self._errors += int(wrong.sum())
        self._seconds += seconds
        return BatchRow(
            method=self.label,
            seed=self.seed,
            batch=batch.position,
            segment=batch.segment.name,
            severity=batch.segment.severity,
            samples=len(images),
            scored=int(scored.sum()),
            errors=int(wrong.sum()),
            wrong=pack_bits(wrong.numpy()) if wrong.ndim == 1 else "",
            updated=report.updated,
            reason=MISSED if missed else report.reason,
            held=report.held,
            forwards=report.forwards + (report.guard.forwards if report.guard else 0.0),
            backwards=report.backwards,
            ms=round(seconds * 1e3, 4),
            state_bytes=report.state_bytes,
            values=report.values,
        )

    def close(self, held_out: Iterable[Batch] = ()) -> UnitRow:
        """What the whole unit came to, with the memory that a step on a batch of this stream takes.

        The held-out source images are answered by what was learned in the end, and nothing is learned from them.
        """
        if self._pace is not None:
            self._pace.catch_up()
        return UnitRow(
            method=self.label,
            seed=self.seed,
            batches=self._batches,
            scored=self._scored,
            errors=self._errors,
            seconds=round(self._seconds, 4),
            held_out=self.probe(held_out),
            memory=self._memory(),
        )

    def probe(self, batches: Iterable[Batch]) -> dict[str, int]:
        """Errors and scored answers of the model as it is now, frozen; empty without batches."""
        counts: dict[str, int] = {}
        with self._adapted.frozen():
            for batch in batches:
                output = self._adapted(batch.images.to(self._device))
                wrong, scored = mistakes(find_logits(output), batch.labels)
                counts["errors"] = counts.get("errors", 0) + int(wrong.sum())
                counts["scored"] = counts.get("scored", 0) + int(scored.sum())
        return counts

    def _memory(self) -> dict[str, Any]:
        if self._sample is None or len(self._sample) < 4:
            memory = self._adapted.memory()
        else:
            memory = self._adapted.memory(self._sample)
        return {
            "model": memory.model,
            "state": dict(memory.state),
            "rollback": memory.rollback,
            "saved": memory.saved,
            "predicted": memory.predicted,
        }

    def _clock(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
