"""Whoever calls, and however: the same answers, of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import acclimate
from conformance.tools import (
    Batches,
    Factory,
    Subject,
    answers,
    assert_same,
    bits,
    book,
    flat,
    make,
    merge,
    quiet,
    source_answer,
)

from .common import WARM, later_batches, same_future, warmed
from .state import check_save


def check_batch_of_one(method: Subject, factory: Factory, batch: Batches) -> None:
    """A batch of one is answered, finitely, like any other."""
    adapted = make(method, factory)
    for number in range(3):
        found = adapted(batch(number)[:1])
        for tensor, like in zip(flat(found), flat(source_answer(factory, batch(number)[:1])), strict=True):
            assert tensor.shape == like.shape and bool(tensor.isfinite().all())
    assert adapted.last.samples == 1


def check_callers(method: Subject, factory: Factory, batch: Batches) -> None:
    """Under no_grad, inference_mode or neither, with inputs made there or requiring gradients: all the same."""
    later = later_batches(batch)
    expected = make(method, factory)
    wanted = answers(expected, later)
    modes: dict[str, Callable[[], Any]] = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    for name, mode in modes.items():
        model = factory()
        with mode():
            adapted = acclimate.adapt(model, method)
            found = [adapted(x) for x in later]
        assert_same(found, wanted, f"answers under {name}")
        assert_same(book(adapted), book(expected), f"state under {name}")
    with torch.inference_mode():
        frozen_inputs = [x.clone() for x in later]
    with_grad = [x.clone().requires_grad_(x.is_floating_point()) for x in later]
    for name, inputs in {"inference inputs": frozen_inputs, "inputs with gradients": with_grad}.items():
        adapted = make(method, factory)
        found = [adapted(x) for x in inputs]
        assert_same(found, wanted, f"answers to {name}")
        assert_same(book(adapted), book(expected), f"state after {name}")
        assert not any(tensor.requires_grad for output in found for tensor in flat(output))
        assert all(x.grad is None for x in inputs if not x.is_inference())


def check_verbs_under_inference_mode(method: Subject, factory: Factory, batch: Batches) -> None:
    """Every verb may be called under inference_mode, and what follows outside of it is the same."""
    twin, other = warmed(method, factory, batch), make(method, factory)
    with tempfile.TemporaryDirectory() as folder:
        path, models = Path(folder) / "state", [factory(), factory()]
        with torch.inference_mode():
            adapted = acclimate.adapt(models[0], method)
            answers(adapted, map(batch, range(WARM)))
            adapted.snapshot("a")
            adapted.reset()
            adapted.restore("a")
            merge(adapted)
            adapted.memory(batch(1))
            adapted.save(path)
            loaded = acclimate.load(models[1], path, method=None if isinstance(method, str) else method)
        same_future(adapted, twin, batch, "after snapshot, reset and restore under inference_mode")
        adapted.restore("a")
        twin = warmed(method, factory, batch)
        same_future(loaded, twin, batch, "after load under inference_mode")
    with torch.inference_mode():
        loaded.reset()
    same_future(loaded, other, batch, "after reset under inference_mode")


def check_outputs(method: Subject, factory: Factory, batch: Batches) -> None:
    """Answers carry no graph, share no storage with the state, and stay as they were when they were given."""
    adapted, twin = make(method, factory), make(method, factory)
    kept: list[tuple[Any, list[Any]]] = []
    for x in (*later_batches(batch), later_batches(batch)[0]):
        found = adapted(x)
        twin(x)
        for tensor in flat(found):
            assert not tensor.requires_grad and tensor.grad_fn is None
        kept.append((found, [bits(tensor) for tensor in flat(found)]))
    for found, before in kept:
        assert [bits(tensor) for tensor in flat(found)] == before, "an earlier answer changed"
        for tensor in flat(found):
            tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor.zero_()
    same_future(adapted, twin, batch, "after the caller wrote over its answers")


def check_answer_after(method: Subject, factory: Factory, batch: Batches) -> None:
    """`answer="after"` learns the same and answers as a frozen model would right after the step."""
    after, before = make(method, factory, answer="after"), make(method, factory)
    for x in later_batches(batch):
        found = after(x)
        before(x)
        with before.frozen():
            assert_same(found, before(x), "the answer after the update")
        assert not any(tensor.requires_grad for tensor in flat(found))
        assert_same(book(after), book(before), "state when answering after the update")


def check_numbers(method: Subject, factory: Factory, batch: Batches) -> None:
    """bfloat16 models adapt in bfloat16; callers under autocast get finite answers and float32 state."""
    if not batch(0).is_floating_point():
        return
    half = make(method, lambda: factory().to(torch.bfloat16))
    for number in range(WARM):
        found = flat(half(batch(number).to(torch.bfloat16)))[0]
        assert found.dtype == torch.bfloat16 and bool(found.isfinite().all())
    assert all(weight.dtype == torch.bfloat16 for weight in half.state.weights.values())
    around, each = make(method, factory), make(method, factory)
    device = batch(0).device.type
    with torch.autocast(device, torch.bfloat16):
        wanted = [around(x) for x in map(batch, range(WARM))]
    found = []
    for number in range(WARM):
        with torch.autocast(device, torch.bfloat16):
            found.append(each(batch(number)))
    assert all(bool(tensor.isfinite().all()) for output in found for tensor in flat(output))
    assert all(weight.dtype == torch.float32 for weight in each.state.weights.values())
    assert_same(wanted, found, "answers in one autocast block or in one for each batch")
    assert_same(book(around), book(each), "state in one autocast block or in one for each batch")


def check_quiet(method: Subject, factory: Factory, batch: Batches) -> None:
    """Nothing is printed and nobody is warned."""
    with quiet():
        adapted = warmed(method, factory, batch)
        adapted(batch(5)[:1])
        repr(adapted)
        adapted.memory(batch(0))
        check_save(method, factory, batch)
