"""What the checks stand on: whole states, bit-for-bit comparison, and models that fail or count on purpose.

Nothing here asks the library what it did: states are read tensor by tensor, passes are counted by the model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import acclimate
from acclimate.adapted import Adapted
from acclimate.core.method import Method, methods

__all__ = [
    "Batches",
    "Factory",
    "Fault",
    "Faulty",
    "Subject",
    "answers",
    "assert_same",
    "bits",
    "book",
    "build",
    "flat",
    "make",
    "merge",
    "pristine",
    "quiet",
    "source_answer",
    "source_modules",
    "verdict_deferred",
]

assert acclimate.adapt.__kwdefaults__ is not None
acclimate.adapt.__kwdefaults__["guard"] = None  # for processes without the suite's conftest

Factory = Callable[[], nn.Module]
Batches = Callable[[int], Tensor]
Subject = str | Method


def build(method: Subject) -> Method:
    return methods.build(method)


def make(method: Subject, factory: Factory, **options: Any) -> Adapted:
    return acclimate.adapt(factory(), method, **options)


def pristine(factory: Factory) -> nn.Module:
    """A source model of its own, in eval mode: what unadapted answers are compared with."""
    return factory().eval()


@torch.no_grad()
def source_answer(factory: Factory, *args: Any) -> Any:
    return pristine(factory)(*args)


def source_modules(factory: Factory) -> list[nn.Module]:
    return list(factory().modules())


def merge(adapted: Adapted) -> nn.Module | None:
    """The plain copy; None for a method that says no plain copy gives its answers."""
    if adapted.method.plain():
        return adapted.merged()
    with contextlib.suppress(ValueError):
        adapted.merged()
        raise AssertionError("merged() gave a model that does not answer like the adaptation")
    return None


def answers(adapted: Adapted, batches: Iterable[Tensor]) -> list[Tensor]:
    return [adapted(x).clone() for x in batches]


def flat(value: Any) -> list[Tensor]:
    """Tensors of a nested output, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for item in value.values() for t in flat(item)]
    if dataclasses.is_dataclass(value):
        return [t for field in dataclasses.fields(value) for t in flat(getattr(value, field.name))]
    if isinstance(value, tuple | list):
        return [t for item in value for t in flat(item)]
    return []


def bits(tensor: Tensor) -> tuple[Any, ...]:
    """Type, shape and bytes: equal only for tensors that are equal bit for bit, NaN and signed zeros included."""
    plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
    return tensor.dtype, tuple(tensor.shape), plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def book(adapted: Adapted) -> dict[str, Any]:
    """Everything mutable, read from where it lives: module, declared state, optimisers, generators, counters."""
    adapted.settle()
    found: dict[str, Any] = {}
    for name, tensor in (*adapted.module.named_parameters(), *adapted.module.named_buffers()):
        found[f"module {name}"] = bits(tensor)
    for name, tensor in adapted.unwrap().state_dict().items():
        if not isinstance(tensor, Tensor):
            continue
        found[f"source {name}"] = bits(tensor)
    table = adapted.state.table
    for name, slot in table.slots.items():
        if slot.kind != "buffers":  # the model's own, already in the book; they are declared when they first change
            found[f"slot {name}"] = bits(slot.tensor)
    for name, tracked in table.optimizers.items():
        found |= {f"optimizer {name} {k}": v for k, v in _leaves(tracked.optimizer.state_dict())}
    for name, generator in table.generators.items():
        found[f"generator {name}"] = bits(generator.get_state())
    found |= {f"counter {name}": count for name, count in table.counters.items()}
    return found


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}.{number}")
    elif isinstance(value, Tensor):
        yield path, bits(value)
    elif not callable(value):
        yield path, value


def assert_same(found: Any, expected: Any, what: str) -> None:
    """Bit-for-bit equality of books, tensors or lists of tensors, naming what differs."""
    if isinstance(expected, Mapping) and not flat(expected):
        differing = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
        assert not differing, f"{what}: these differ: {', '.join(differing[:8])}"
        return
    found, expected = flat(found), flat(expected)
    assert len(found) == len(expected), f"{what}: {len(found)} tensors, expected {len(expected)}"
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        if bits(a) != bits(b):
            shapes = f"{list(a.shape)} {a.dtype} and {list(b.shape)} {b.dtype}"
            apart = float((a.float() - b.float()).abs().max()) if a.shape == b.shape and a.numel() else float("nan")
            raise AssertionError(f"{what}: tensor {number} differs ({shapes}; largest difference {apart:.3g})")


class Fault:
    """A switch shared by a model and its clones: which misfortune happens, and what passed through."""

    def __init__(self) -> None:
        self.gradient: float | None = None
        """Output gradients are multiplied by this."""
        self.countdown = 0
        """The forward that raises: 1 for the next one, 0 for none."""
        self.error: type[BaseException] = RuntimeError
        self.rows: list[int] = []
        """Rows of each forward."""
        self.backwards = 0
        """Backward passes; one counts once however many forwards it runs through."""
        self._running = False

    def __deepcopy__(self, memo: dict[int, object]) -> Fault:
        return self

    def forward(self, rows: int) -> None:
        self.rows.append(rows)
        if self.countdown:
            self.countdown -= 1
            if self.countdown == 0:
                raise self.error("the model broke on purpose")

    def backward(self) -> None:
        if not self._running:
            self._running = True
            self.backwards += 1
            torch.autograd.Variable._execution_engine.queue_callback(self._done)

    def _done(self) -> None:
        self._running = False


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fault: Fault) -> Tensor:
        ctx.fault = fault
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.fault.backward()
        factor = ctx.fault.gradient
        return gradient if factor is None else gradient * factor, None


class Faulty(nn.Module):
    """The same model under the eye, and the thumb, of a `Fault`."""

    def __init__(self, model: nn.Module, fault: Fault) -> None:
        super().__init__()
        self.model = model
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        self.fault.forward(len(x))
        return _Through.apply(self.model(x), self.fault)


def breaking(method: Subject, error: type[BaseException], armed: list[bool]) -> Method:
    """The same method, whose step raises at its very end while `armed`."""
    original = build(method)
    kind = type(original)

    class Breaking(kind):  # type: ignore[valid-type, misc]
        def step(self, state: Any, x: Tensor) -> Tensor:
            logits = super().step(state, x)
            if armed:
                raise error("the method broke on purpose")
            return logits

    return Breaking(**{f.name: getattr(original, f.name) for f in dataclasses.fields(original)})


@contextlib.contextmanager
def verdict_deferred() -> Iterator[None]:
    """As on an accelerator: within this block no step reads its own verdict; whatever comes next does."""
    free = Adapted.__dict__["_reading_is_free"]
    Adapted._reading_is_free = staticmethod(lambda x: False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Adapted._reading_is_free = free  # type: ignore[method-assign]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """AssertionError if anything is printed or warned about in this block."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    assert not out.getvalue() and not err.getvalue(), f"printed: {out.getvalue()}{err.getvalue()}"
    assert not seen, f"warned: {[str(w.message) for w in seen]}"
