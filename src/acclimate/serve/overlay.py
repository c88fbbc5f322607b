"""A worker's own adaptation of the shared model: it takes up any stream's version, answers, and learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from acclimate.adapted import Adapted
from acclimate.core import foreach
from acclimate.core.output import find_logits
from acclimate.core.report import StepReport
from acclimate.core.storage import fingerprint
from acclimate.entry import adapt
from acclimate.serve.packed import Packed
from acclimate.serve.settings import Settings

__all__ = ["Answered", "Overlay", "StepOutcome", "Stepped"]

StepOutcome = Literal["done", "idle", "refused"]
"""Something was learned; nothing was worth it; it was undone, as broken or by the guard."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Logits `[N, C, ...]` of one version, and how many rows the source model has answered."""

    logits: Tensor
    held: int
    held_at_source: bool


@dataclass(frozen=True, slots=True)
class Stepped:
    """What one step did: its answer, the state after it (None where nothing changed, bit for bit), and its record."""

    answered: Answered
    state: Packed | None
    outcome: StepOutcome
    reason: str | None
    values: dict[str, float]


class Overlay:
    """One `Adapted` model that works for many streams, one at a time. Belongs to one thread.

    Arguments: `model`, shared and never changed; `settings`. Costs a structural clone, none of the weights.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.adapted: Adapted = adapt(model, settings.method, guard=settings.guard, seed=settings.seed)
        self.first = Packed.of_table(self.adapted.state.table)
        self._whole: Packed | None = self.first
        self._answers: Packed | None = self.first

    def identity(self) -> dict[str, Any]:
        """What a state must have in common with this overlay to fit it."""
        guard = self.adapted.guard
        return {
            "method": self.adapted.method.config(),
            "guard": None if guard is None else guard.config(),
            "answer": self.adapted.answer,
            "seed": self.adapted.state.table.seed,
            "base": fingerprint(self.adapted.unwrap()),
        }

    def answer(self, state: Packed, x: Tensor) -> Answered:
        """The answer that this state gives, learning nothing. ValueError for what the model cannot take."""
        self._load_for_answers(state)
        with self.adapted.frozen():
            return self._answered(x)

    def step(self, state: Packed, x: Tensor) -> Stepped:
        """Answer from this state and learn from the batch; the state itself stays as it is."""
        self._load(state)
        self._whole = self._answers = None
        adapted = self.adapted
        adapted.adapting = True
        answered = self._answered(x)
        adapted.settle()
        report = adapted.last or StepReport(len(x))
        after = Packed.of_table(adapted.state.table)
        unchanged = after.same(state)
        self._whole = self._answers = state if unchanged else after
        return Stepped(
            answered, None if unchanged else after, _outcome(report, unchanged), report.reason, _values(report)
        )

    def adopt(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> Packed:
        """The state of a file. ValueError if it does not fit."""
        self._load(self.first)
        self._whole = self._answers = None
        self.adapted.state.resume(tensors, scalars)
        self._whole = self._answers = Packed.of_table(self.adapted.state.table)
        return self._whole

    def _answered(self, x: Tensor) -> Answered:
        logits = find_logits(self.adapted(x), None).detach()
        report = self.adapted.last or StepReport(len(x))
        held_at_source = report.held == len(x) if report.guard is None else report.guard.held
        return Answered(logits, report.held, held_at_source)

    @torch.inference_mode(False)
    def _load(self, state: Packed) -> None:
        if self._whole is state:
            return
        self._whole = self._answers = None
        self._announce(state)
        self.adapted.state.table.restore(state.snapshot())
        self._whole = self._answers = state

    @torch.no_grad()
    def _load_for_answers(self, state: Packed) -> None:
        """Only what answers are read from: neither optimisers nor generators, which are most of the tensors."""
        if self._answers is state:
            return
        table = self.adapted.state.table
        views = state.tensors()
        kept = {name for name in views if "/" not in name}
        if kept != table.slots.keys():  # tensors that came later, or are yet to come
            self._load(state)
            return
        self._whole = self._answers = None
        foreach.copy([slot.tensor for slot in table.slots.values()], [views[name] for name in table.slots])
        self._answers = state

    def _announce(self, state: Packed) -> None:
        """Declare buffers that another overlay has seen the model change."""
        prefix, slots = "buffers.", self.adapted.state.table.slots
        names = [entry[0] for entry, _ in state.layout.places if entry[0].startswith(prefix)]
        late = [name.removeprefix(prefix) for name in names if name not in slots]
        self.adapted.state.buffers.declare(self.adapted.state.table, late)


def _outcome(report: StepReport, unchanged: bool) -> StepOutcome:
    if report.updated:
        return "done"
    undone = report.verdict.refused is not None or (report.guard is not None and not report.guard.learns)
    return "refused" if unchanged or undone else "idle"


def _values(report: StepReport) -> dict[str, float]:
    return report.values if report.guard is None else {**report.values, **report.guard.signals}
