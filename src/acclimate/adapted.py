"""Adapted: module in, module out, and every step a transaction."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import torch
from torch import Tensor, nn

from acclimate.anatomy import explain_input, takes_indices
from acclimate.core.budget import Budget
from acclimate.core.buffers import Buffers
from acclimate.core.clone import structural_clone
from acclimate.core.demands import state_demands
from acclimate.core.inputs import Call, fit_rows
from acclimate.core.layout import channels_last_pays, in_layout, shield_group_norms
from acclimate.core.memory import MemoryPolicy, policies
from acclimate.core.merged import merged, move
from acclimate.core.method import Method
from acclimate.core.output import Selector, find_logits, merge_rows, release, with_logits
from acclimate.core.report import StepReport, Verdict
from acclimate.core.state import State
from acclimate.core.storage import fingerprint, write_state
from acclimate.core.table import Snapshot
from acclimate.functional import entropy
from acclimate.guarded import Guarded

if TYPE_CHECKING:
    from acclimate.core.guard import Guard
    from acclimate.memory.plan import Plan

__all__ = ["Adapted"]

_MODEL_ERRORS = (RuntimeError, IndexError, AssertionError, TypeError)


class Adapted(Guarded):
    """A model that answers as before and adapts to the stream it answers. Built by `acclimate.adapt`."""

    @torch.inference_mode(False)
    def __init__(
        self,
        model: nn.Module,
        method: Method,
        output: Selector,
        answer: str,
        seed: int,
        resumed: bool = False,
        budget: Budget | None = None,
        guard: Guard | None = None,
    ) -> None:
        if answer not in ("before", "after"):
            raise ValueError(f"answer must be 'before' or 'after' the update, found {answer!r}.")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise ValueError(f"seed must be a whole number from 0 to 2^63 - 1, found {seed!r}.")
        super().__init__()
        self.method = method
        self.answer = answer
        self.adapting = True
        self.training = False
        self.last: StepReport | None = None
        self._output = output
        self._base = [model]
        self._indices = takes_indices(model)
        pristine = dict(model.named_buffers(remove_duplicate=False))
        self._source = [structural_clone(model)]
        Buffers(self._source[0], pristine).pin(self._source[0])
        self.module = structural_clone(model)
        shield_group_norms(self.module)
        self.state = state = State(self.module, seed, output)
        method.setup(state)
        state.normalise(method.statistics(state))
        self._keep(policies.build(method.memory), budget)
        state.buffers = Buffers(self.module, pristine)
        state.channels_last = bool(state.weights or state.layers) and channels_last_pays(model)
        self._owned: tuple[int, set[int]] | None = None
        self._shadow: Snapshot | None = None
        self._pending: StepReport | None = None
        self._snapshots: dict[str, tuple[Snapshot, MemoryPolicy, Plan | None]] = {}
        self._tags = itertools.count()
        if not resumed:
            self._measure_source(method)
        self._watch(guard, pristine)

    def _measure_source(self, method: Method) -> None:
        try:
            in_layout(self.state, lambda: self._look_at_source(method))
        except _MODEL_ERRORS as error:
            raise ValueError(
                f"{method.name} could not measure the source: {error}. Pass source images as the model takes them, "
                f"{explain_input(self._base[0])}, and labels, where it asks for them, that count its classes from 0."
            ) from error

    def _look_at_source(self, method: Method) -> None:
        if self.state.normalization is not None:
            self.state.normalization.ready(self.state)
        method.ready(self.state)

    # -- answering -------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Answer like the model, and adapt while `adapting`.

        Rows that hold NaN, infinities, absurd magnitudes or one single value, and whole batches of
        identical rows, are answered by the source model and leave no trace. ValueError for what the model
        cannot take at all: no tensor, no rows, integers, another rank or channel count.
        """
        start = time.perf_counter()
        call = Call.of(args, kwargs, indices=self._indices)
        try:
            with torch.inference_mode(False):
                answer = self._serve(call.ordinary())
        except _MODEL_ERRORS as error:
            self._explain(call, error)
            raise
        if self.last is not None:
            self.last.milliseconds = (time.perf_counter() - start) * 1e3
        return answer

    def _serve(self, call: Call) -> Any:
        fit, self.state.extremes = fit_rows(call.x)
        respond = self._step if self.adapting else self._frozen_answer
        if fit is None:
            return respond(call)
        count = len(call.x)
        held = count - int(fit.sum())
        if held == count:
            answer = self._source_answer(call)
            self.settle()
            self.last = StepReport(count, held=count, skipped="no row of the batch is fit to learn from")
            return answer
        apart = self._source_answer(call.rows(~fit))
        kept = respond(call.rows(fit))
        if self.last is not None:
            self.last.samples, self.last.held = count, self.last.held + held
        return merge_rows(kept, apart, fit)

    @torch.no_grad()
    def _source_answer(self, call: Call) -> Any:
        return self._released(self._source[0](*call.args, **call.kwargs))

    @torch.no_grad()
    def _frozen_answer(self, call: Call) -> Any:
        self.settle()
        self.state.begin(call, frozen=True)
        try:
            logits = in_layout(self.state, lambda: self.method.respond(self.state, call.x))
            answer = self._released(with_logits(self.state.answer, logits, self._output))
        finally:
            self.state.end()
        found = self._judge(call, logits, frozen=True)
        self.last = StepReport(len(call.x), forwards=self.state.forwards, skipped="frozen", guard=self._told)
        if (found and found.hold) or (self._reading_is_free(call.x) and not self._finite(logits)):
            self.last.held = len(call.x)
            return self._source_answer(call)
        return answer

    def _step(self, call: Call) -> Any:
        self.settle()
        self._fit_budget(call)
        shadow = self._shadow = self.state.table.snapshot(self._shadow)
        try:
            logits, answer = in_layout(self.state, lambda: self._try_step(call, shadow), shadow)
            if self._reading_is_free(call.x):
                self.settle()
                if not self._finite(logits):
                    answer = self._source_answer(call)
                    self.last = self.last or StepReport(len(call.x))
                    self.last.held = len(call.x)
        except BaseException:
            self._pending = None
            self.state.table.restore(shadow)
            raise
        finally:
            self.state.end()
        return answer

    def _try_step(self, call: Call, shadow: Snapshot) -> tuple[Tensor, Any]:
        state = self.state
        state.begin(call)
        with torch.enable_grad():
            if self.method.episodic:
                state.restart()
            with self._keeping(call):
                logits = first = self.method.step(state, call.x).detach()
                for _ in range(self.method.steps - 1):
                    logits = self.method.step(state, call.x).detach()
        if self.method.steps > 1:
            logits = torch.where(logits.isfinite().all(), logits, first)
        demands = [("the answers are not finite", logits.isfinite().all()), *state.demands]
        found = self._judge(call, logits)
        with torch.no_grad():
            if found is not None:
                self._act(found, shadow, len(call.x))
            later = self._answer_after(call) if self.answer == "after" else None
            if later is not None:
                demands.append(("the answers after the update are not finite", later.isfinite().all()))
            verdict = Verdict([*demands, *state_demands(state, logits, shadow)], state.wishes)
            if later is not None:
                logits = torch.where(verdict.holds(), later, logits)
            elif state.fallback is not None:
                logits = torch.where(verdict.holds(), logits, state.fallback.to(logits.dtype))
            answer = with_logits(self._released(state.answer), logits, self._output)
        held = found is not None and found.hold
        if held:
            answer = self._source_answer(call)
        told = find_logits(answer, self._output).detach() if held else logits
        state.note(entropy=entropy(told).mean())
        self.last = self._pending = StepReport(
            len(call.x),
            held=held * len(call.x),
            forwards=state.forwards,
            backwards=state.backwards,
            state_bytes=sum(state.table.bytes().values()),
            restarted=state.restarted,
            guard=self._told,
            verdict=verdict,
            notes=state.notes,
            details=state.details,
        )
        return logits, answer

    def _step_on(self, call: Call, before: Snapshot) -> tuple[Tensor, Any]:
        try:
            return in_layout(self.state, lambda: self._try_step(call, before), before)
        except _MODEL_ERRORS as error:
            self._explain(call, error)
            raise

    def _answer_after(self, call: Call) -> Tensor:
        state = self.state
        answer, state.frozen = state.answer, True
        try:
            return self.method.respond(state, call.x)
        finally:
            state.answer, state.frozen = answer, False

    def _released(self, output: Any) -> Any:
        """The caller's own: without a graph, and sharing no storage with the source or the state."""
        if self._owned is None or self._owned[0] != id(self):
            parts = (self.module, self._source[0])
            tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
            tensors += [slot.tensor for slot in self.state.table.slots.values()]
            self._owned = id(self), {tensor.untyped_storage().data_ptr() for tensor in tensors}
        return release(output, self._owned[1])

    @staticmethod
    def _finite(logits: Tensor) -> bool:
        return bool(logits.isfinite().all())

    @staticmethod
    def _reading_is_free(x: Tensor) -> bool:
        """Whether the verdict can be read at once; where that would stall a device, the next step reads it."""
        return x.device.type == "cpu"

    @torch.inference_mode(False)
    def settle(self) -> None:
        """Read the verdict on the last step and undo it if it was refused. Called by whatever reads state."""
        report, self._pending = self._pending, None
        if report is None or self._shadow is None:
            return
        table = self.state.table
        if report.verdict.refused:
            self._refuse(self._shadow)
        elif report.verdict.idle:
            table.restore(self._shadow, learned_only=True)
            self._go_back(restarting=report.restarted)
        if not report.verdict.refused:
            self._keep_good()
            table.counters["batches"] += 1
        report.state_bytes = sum(table.bytes().values())

    def _explain(self, call: Call, error: Exception) -> None:
        """ValueError that says what the model expects, if even the source model cannot answer this input."""
        try:
            with torch.inference_mode(False):
                find_logits(self._source_answer(call.ordinary()), self._output)
        except Exception:
            found = f"{list(call.x.shape)} {call.x.dtype} on {call.x.device}"
            raise ValueError(
                f"the model cannot take this input: found {found}, expected {explain_input(self._base[0])}. "
                f"Nothing was learned from it. The model says: {error}"
            ) from error

    # -- switches --------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Only keeps the flag: adaptation has its own switch, and dropout never turns on by accident."""
        self.training = mode
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ignored: the method decides what learns, `adapting` and `frozen()` whether it does."""
        return self

    @contextlib.contextmanager
    def frozen(self) -> Generator[Self]:
        """Within this block the model answers with what it has learned and learns nothing."""
        was, self.adapting = self.adapting, False
        try:
            yield self
        finally:
            self.adapting = was

    @contextlib.contextmanager
    def source(self) -> Generator[nn.Module]:
        """Within this block, gives the source model, in eval mode and without gradients."""
        with torch.no_grad():
            yield self._source[0]

    # -- state -----------------------------------------------------------------------------------------

    @torch.inference_mode(False)
    def reset(self) -> None:
        """Back to the state of a freshly adapted model, bit for bit. Costs O(adapted bytes)."""
        self._pending = None
        if self._memory_plan is not None:
            self._plan_by(self._asked, None)
        self.state.table.reset()

    @torch.inference_mode(False)
    def snapshot(self, tag: str | None = None) -> str:
        """Keep a copy of everything learned in memory, O(adapted bytes); returns its tag."""
        self.settle()
        name = tag or f"{self.state.batches}.{next(self._tags)}"
        self._snapshots[name] = self.state.table.snapshot(), self._policy, self._memory_plan
        return name

    @torch.inference_mode(False)
    def restore(self, tag: str) -> None:
        """Back to a snapshot, bit for bit; it stays available. ValueError for an unknown tag."""
        if tag not in self._snapshots:
            known = ", ".join(self._snapshots) or "none"
            raise ValueError(f"there is no snapshot {tag!r}. Kept: {known}. Take one with snapshot().")
        self._pending = None
        snapshot, policy, plan = self._snapshots[tag]
        if self._memory_plan is not plan:
            self._plan_by(policy, plan)
        self.state.table.restore(snapshot)

    def forget(self, tag: str) -> None:
        """Drop a snapshot and its memory."""
        self._snapshots.pop(tag, None)

    @torch.inference_mode(False)
    def save(self, path: str | Path) -> None:
        """Write the adaptation, not the model: one small safetensors file, atomically."""
        self.settle()
        tensors, scalars = self.state.table.export()
        header = {
            "method": self.method.config(),
            "answer": self.answer,
            "seed": self.state.table.seed,
            "scalars": scalars,
            "base": fingerprint(self._base[0]),
            "torch": torch.__version__,
        }
        if self.guard is not None:
            header["guard"] = self.guard.config()
        write_state(Path(path), tensors, header)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> NoReturn:
        """Refused: it would write into tensors that the source model shares."""
        raise ValueError("an adapted model takes no state dict. Use acclimate.load(model, path) on a file of save().")

    def unwrap(self) -> nn.Module:
        """The model that was passed to `adapt`: the same object, bit for bit as it came."""
        return self._base[0]

    @torch.inference_mode(False)
    def merged(self) -> nn.Module:
        """A plain copy of the model with what was learned, in eval mode, sharing no storage with anything here.

        ValueError for a method whose answers are more than those of a model with its weights.
        """
        self.settle()
        if not self.method.plain():
            raise ValueError(
                f"the answers of {self.method.name} are more than those of a model with its weights, so no plain copy "
                "gives them. Keep the adapted model, with frozen() if it shall learn no more, and save() its state."
            )
        return merged(self._base[0], self.module, self.state.layers)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.settle()
        self._shadow = self._owned = None
        self._copy_arbiter(fn)
        move(self._base[0], (self._source[0], self.module), self.state.table, fn)
        return self

    def extra_repr(self) -> str:
        adapted = sum(weight.numel() for weight in self.state.weights.values())
        return f"method={self.method.name}, adapted={adapted} values, batches={self.state.batches}"
