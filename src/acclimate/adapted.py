"""Adapted: module in, module out, and every step a transaction."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from acclimate.anatomy import explain_input, takes_indices
from acclimate.core import foreach
from acclimate.core.clone import structural_clone
from acclimate.core.inputs import Call, fit_rows
from acclimate.core.layout import channels_last_pays
from acclimate.core.meter import Memory, SavedBytes, tensor_bytes
from acclimate.core.method import Method, methods
from acclimate.core.normalization import Normalization, NormalizationLayer, convert, normalizations
from acclimate.core.output import Selector, detach, find_logits, merge_rows, with_logits
from acclimate.core.report import StepReport, Verdict
from acclimate.core.state import State
from acclimate.core.storage import fingerprint, read_state, write_state
from acclimate.core.table import Snapshot
from acclimate.functional import entropy

__all__ = ["Adapted", "adapt", "load"]

T = TypeVar("T")

LARGEST_STEP = 0.5
"""A step that moves the weights by more than this share of the source's norm is an explosion, not learning."""


class Adapted(nn.Module):
    """A model that answers as before and adapts to the stream it answers. Built by `acclimate.adapt`."""

    def __init__(self, model: nn.Module, method: Method, output: Selector, answer: str, seed: int) -> None:
        super().__init__()
        if answer not in ("before", "after"):
            raise ValueError(f"answer must be 'before' or 'after' the update, found {answer!r}.")
        self.method = method
        self.answer = answer
        self.adapting = True
        self.last: StepReport | None = None
        self._output = output
        self._base = [model]
        self._indices = takes_indices(model)
        with torch.inference_mode(False):
            self._source = [structural_clone(model)]
            self.module = structural_clone(model)
            self.state = State(self.module, seed, output)
            method.setup(self.state)
            normalization = normalizations.build(method.normalization)
            self.state.observes = normalization.observes
            self.state.layers = convert(self.module, normalization, self.state.table)
            self.state.watch(dict(model.named_buffers()))
            touched = bool(self.state.weights or self.state.layers)
            self.state.channels_last = touched and channels_last_pays(model)
        self.training = False
        self._shadow: Snapshot | None = None
        self._pending: StepReport | None = None
        self._snapshots: dict[str, Snapshot] = {}

    # -- answering -------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Answer like the model, and adapt while `adapting`.

        Rows that hold NaN, infinities, absurd magnitudes or one single value, and whole batches of
        identical rows, are answered by the source model and leave no trace. ValueError for what the model cannot
        take at all: no tensor, no rows, integers, another rank or channel count.
        """
        start = time.perf_counter()
        call = Call.of(args, kwargs, indices=self._indices)
        try:
            with torch.inference_mode(False):
                answer = self._serve(call.ordinary())
        except (RuntimeError, IndexError, AssertionError, TypeError) as error:
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
            self.settle()
            self.last = StepReport(count, held=count, skipped="no row of the batch is fit to learn from")
            return self._source_answer(call)
        kept = respond(call.rows(fit))
        if self.last is not None:
            self.last.samples, self.last.held = count, self.last.held + held
        return merge_rows(kept, self._source_answer(call.rows(~fit)), fit)

    @torch.no_grad()
    def _source_answer(self, call: Call) -> Any:
        return self._source[0](*call.args, **call.kwargs)

    @torch.no_grad()
    def _frozen_answer(self, call: Call) -> Any:
        self.settle()
        self.state.begin(call)
        output = self._with_layout(lambda: self.state.run(call.x, "view"))
        self.last = StepReport(len(call.x), forwards=1.0, skipped="frozen")
        return output

    def _with_layout(self, run: Callable[[], T]) -> T:
        """Run in channels last where that pays; for good in the layout that came if the model cannot view it."""
        try:
            return run()
        except RuntimeError as error:
            if not self.state.channels_last or "view size is not compatible" not in str(error):
                raise
        self.state.channels_last = False
        return run()

    def _step(self, call: Call) -> Any:
        self.settle()
        shadow = self._shadow = self.state.table.snapshot(self._shadow)
        logits, answer = self._with_layout(lambda: self._try_step(call, shadow))
        self.last = self._pending = self._judged(len(call.x), logits, shadow)
        if self._reading_is_free(call.x):
            self.settle()
            if not bool(logits.isfinite().all()):
                self.last.held = len(call.x)
                return self._source_answer(call)
        if self.answer == "after":
            with torch.no_grad():
                answer = self.state.run(call.x, "view")
            self.last.forwards += 1
        return answer

    def _try_step(self, call: Call, shadow: Snapshot) -> tuple[Tensor, Any]:
        state = self.state
        try:
            state.begin(call)
            with torch.enable_grad():
                if self.method.episodic:
                    state.restart()
                logits = self.method.step(state, call.x)
                for _ in range(self.method.steps - 1):
                    logits = self.method.step(state, call.x)
            logits = logits.detach()
            return logits, with_logits(detach(state.answer), logits, self._output)
        except BaseException:
            state.table.restore(shadow)
            raise

    @staticmethod
    def _reading_is_free(x: Tensor) -> bool:
        """Whether the verdict can be read at once; where that would stall a device, the next step reads it."""
        return x.device.type == "cpu"

    @torch.no_grad()
    def _judged(self, samples: int, logits: Tensor, before: Snapshot) -> StepReport:
        """Lay down on the device what must hold for the step to be kept."""
        state = self.state
        if "entropy" not in state.notes:
            state.note(entropy=entropy(logits).mean())
        demands = [("the answers are not finite", logits.isfinite().all()), *state.demands]
        floating = [s.tensor for _, s in state.table.entries() if s.tensor.is_floating_point() and s.tensor.numel()]
        if floating:
            whole = foreach.largest(floating, logits.device).isfinite().all()
            demands.append(("the new state is not finite", whole))
        if state.weights:
            now = list(state.weights.values())
            size = foreach.norm(state.sources()).clamp_min(1e-12)
            moved = foreach.norm(now, minus=[before.tensors[name] for name in state.weights]) / size
            demands.append((f"the step moved the weights by over {LARGEST_STEP:.0%}", moved <= LARGEST_STEP))
            state.note(moved=moved, distance=foreach.norm(now, minus=state.sources()) / size)
        return StepReport(
            samples,
            forwards=state.forwards,
            backwards=state.backwards,
            state_bytes=sum(state.table.bytes().values()),
            restarted=state.restarted,
            verdict=Verdict(demands, state.wishes),
            notes=state.notes,
            details=state.details,
        )

    def settle(self) -> None:
        """Read the verdict on the last step and undo it if it was refused. Called by whatever reads state."""
        report, self._pending = self._pending, None
        if report is None or self._shadow is None:
            return
        if report.verdict.refused:
            self.state.table.restore(self._shadow)
            return
        if report.verdict.idle:
            self.state.table.restore(self._shadow, generators=False)
            if report.restarted:
                self.state.table.restart()
        self.state.table.counters["batches"] += 1

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

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Self]:
        """Within this block the model answers with what it has learned and learns nothing."""
        was, self.adapting = self.adapting, False
        try:
            yield self
        finally:
            self.adapting = was

    @contextlib.contextmanager
    def source(self) -> Iterator[nn.Module]:
        """Within this block, gives the source model, in eval mode and without gradients."""
        self.settle()
        with torch.no_grad():
            yield self._source[0]

    # -- state -----------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Back to the state of a freshly adapted model, bit for bit. Costs O(adapted bytes)."""
        self._pending = None
        self.state.table.reset()

    def snapshot(self, tag: str | None = None) -> str:
        """Keep a copy of everything learned in memory, O(adapted bytes); returns its tag."""
        self.settle()
        name = tag or f"{self.state.batches}.{len(self._snapshots)}"
        self._snapshots[name] = self.state.table.snapshot()
        return name

    def restore(self, tag: str) -> None:
        """Back to a snapshot, bit for bit; it stays available. ValueError for an unknown tag."""
        if tag not in self._snapshots:
            known = ", ".join(self._snapshots) or "none"
            raise ValueError(f"there is no snapshot {tag!r}. Kept: {known}. Take one with snapshot().")
        self._pending = None
        self.state.table.restore(self._snapshots[tag])

    def forget(self, tag: str) -> None:
        """Drop a snapshot and its memory."""
        self._snapshots.pop(tag, None)

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
        write_state(Path(path), tensors, header)

    def unwrap(self) -> nn.Module:
        """The model that was passed to `adapt`: the same object, bit for bit as it came."""
        return self._base[0]

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """A plain copy of the model with what was learned, sharing no storage with anything here."""
        self.settle()
        merged = copy.deepcopy(self.module)
        for name, module in list(merged.named_modules()):
            if isinstance(module, NormalizationLayer) and module.plain() is not module:
                parent, _, child = name.rpartition(".")
                setattr(merged.get_submodule(parent), child, module.plain())
        flags = {name: parameter.requires_grad for name, parameter in self._base[0].named_parameters()}
        for name, parameter in merged.named_parameters():
            parameter.data = parameter.data.clone()
            parameter.requires_grad_(flags[name])
        return merged

    def memory(self, *args: Any, **kwargs: Any) -> Memory:
        """Bytes of the model and of declared state by kind; with an input, also what one step on it keeps.

        The step is measured and undone.
        """
        self.settle()
        base = self._base[0]
        shadow = self._shadow.tensors.values() if self._shadow else ()
        state = {str(kind): size for kind, size in self.state.table.bytes().items()}
        model, rollback = tensor_bytes((*base.parameters(), *base.buffers())), tensor_bytes(shadow)
        if not args and not kwargs:
            return Memory(model, state, rollback)
        call = Call.of(args, kwargs, indices=self._indices)
        saved = self._saved_bytes(call)
        small, large = (self._saved_bytes(call.rows(torch.arange(n))) for n in (2, 4))
        slope = (large - small) / 2
        return Memory(model, state, rollback, saved, round(small + slope * (len(call.x) - 2)))

    def _saved_bytes(self, call: Call) -> int:
        before, last = self.state.table.snapshot(), self.last
        with SavedBytes(self.module) as meter:
            self(*call.args, **call.kwargs)
        self._pending, self.last = None, last
        self.state.table.restore(before)
        return meter.peak

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        base = self._base[0]
        probe = fn(next(iter(base.parameters()), torch.empty(0)).detach()[:0])
        floating = next((p for p in base.parameters() if p.is_floating_point()), torch.empty(0))
        if probe.dtype != floating.dtype and floating.numel():
            raise ValueError(
                f"an adapted model keeps its number type: found a change from {floating.dtype} to {probe.dtype}. "
                "Convert the model first, then adapt it."
            )
        self.settle()
        self._shadow = None
        base._apply(fn)
        with torch.no_grad():
            self.state.table.apply(fn)
            own = {id(slot.tensor) for slot in self.state.table.slots.values()}
            homes = dict(base.named_parameters(remove_duplicate=False))
            for clone in (self._source[0], self.module):
                for name, parameter in clone.named_parameters(remove_duplicate=False):
                    if id(parameter) not in own:
                        parameter.data = homes[name].detach()
                for buffer in clone.buffers():
                    if id(buffer) not in own:
                        buffer.data = fn(buffer.data)
            for name in self.state.weights:
                self.state.table.slots[name].initial = homes[name].detach()
        return self

    def extra_repr(self) -> str:
        adapted = sum(weight.numel() for weight in self.state.weights.values())
        return f"method={self.method.name}, adapted={adapted} values, batches={self.state.batches}"


def adapt(
    model: nn.Module,
    method: str | Method = "palm",
    *,
    normalization: str | Normalization | None = None,
    output: Selector = None,
    answer: str = "before",
    seed: int = 0,
) -> Adapted:
    """Wrap a model so that it adapts, without labels, to the stream of inputs it answers.

    The model itself is never changed and comes back from `unwrap()`. Call the result as the model was
    called; it returns what the model returned.

    Arguments: `method`, a name (`"tent"`), a preset (`"palm:stable"`) or an instance (`Tent(learning_rate=1e-4)`);
    `normalization`, how batch norms get their statistics, instead of the method's own choice; `output`, where the
    logits `[N, C, ...]` are in what the model returns, if not the tensor itself, `.logits` or `["logits"]`;
    `answer`, logits from "before" or "after" the update, the latter at one more forward; `seed` of the private
    generators.

    Raises ValueError if the model has nothing that the method adapts or cannot be cloned.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    >>> adapted = adapt(net, "tent")
    >>> adapted(torch.rand(8, 3, 8, 8)).shape
    torch.Size([8, 2])
    >>> adapted.last.updated
    True
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"adapt takes a torch.nn.Module, found {type(model).__name__}.")
    if isinstance(model, Adapted):
        raise ValueError("this model adapts already. Adapt what its unwrap() returns.")
    built = methods.build(method)
    if normalization is not None:
        built = dataclasses.replace(built, normalization=normalizations.build(normalization))
    return Adapted(model, built, output, answer, seed)


def load(
    model: nn.Module,
    path: str | Path,
    *,
    method: Method | None = None,
    output: Selector = None,
    strict: bool = True,
) -> Adapted:
    """Resume an adaptation saved by `Adapted.save`, bit for bit as if it had never stopped.

    Arguments: `model`, the same source model; `method`, needed only if the saved one was built with
    objects that a file cannot hold; `strict=False` accepts another base model of the same shapes.

    Raises FileNotFoundError for a missing file and ValueError for a damaged one, another base, or a state
    that does not fit.
    """
    tensors, header = read_state(Path(path))
    _checked(header, Path(path))
    if strict and header["base"] != (found := fingerprint(model)):
        raise ValueError(
            f"{path} was saved over another model: its base is {header['base'][:12]}, this one is {found[:12]}. "
            "Load the weights it was adapted from, or pass strict=False to take it over on purpose."
        )
    if method is not None and method.config() != header["method"]:
        raise ValueError(f"{path} was saved with {header['method']}, found {method.config()}. Pass the same settings.")
    adapted = Adapted(model, method or methods.build(header["method"]), output, header["answer"], header["seed"])
    adapted.state.resume(tensors, header["scalars"])
    return adapted


def _checked(header: Mapping[str, Any], path: Path) -> None:
    kinds = {"method": dict, "answer": str, "seed": int, "scalars": dict, "base": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(header.get(name), kind)]
    if wrong:
        raise ValueError(f"the header of {path} lacks or garbles {', '.join(wrong)}. Restore it from a copy.")
