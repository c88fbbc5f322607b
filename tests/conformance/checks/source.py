"""The source is never lost."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

import acclimate
from conformance.tools import Batches, Factory, Subject, answers, assert_same, bits, flat, make, merge, source_answer

from .common import WARM, later_batches, same_future, warmed


def _portrait(model: nn.Module) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers()):
        seen[f"tensor {name}"] = bits(tensor)
        seen[f"identity {name}"] = id(tensor), tensor.data_ptr(), tensor._version
        seen[f"flags {name}"] = tensor.requires_grad, tensor.grad is None, tensor.is_leaf
    for name, module in model.named_modules(remove_duplicate=False):
        hooks = [dict(value) for key, value in sorted(vars(module).items()) if key.endswith("_hooks")]
        seen[f"module {name}"] = id(module), type(module), module.training, repr(hooks)
    return seen


def check_unwrap(method: Subject, factory: Factory, batch: Batches) -> None:
    """`unwrap()` is the very model that came in: tensors, flags, gradients, modes, hooks and storages untouched."""
    model = factory()
    model.register_forward_hook(lambda module, args, output: None)
    before = _portrait(model)
    adapted = acclimate.adapt(model, method)
    answers(adapted, map(batch, range(WARM)))
    adapted.reset()
    adapted(batch(9))
    with contextlib.suppress(ValueError):
        adapted(torch.full_like(batch(0), float("nan")) if batch(0).is_floating_point() else batch(0)[:0])
    adapted.snapshot("a")
    merge(adapted)
    adapted.memory(batch(0))
    adapted.restore("a")
    assert adapted.unwrap() is model
    after = _portrait(model)
    assert after == before, [key for key in before if before[key] != after.get(key)]


def check_overlay(method: Subject, factory: Factory, batch: Batches) -> None:
    """Parameters that no method touches lie in the source's storage; adapted ones have their own."""
    model = factory()
    adapted = acclimate.adapt(model, method)
    answers(adapted, map(batch, range(WARM)))
    homes = dict(model.named_parameters(remove_duplicate=False))
    adapting = {id(weight) for weight in adapted.state.weights.values()}
    for name, parameter in adapted.module.named_parameters(remove_duplicate=False):
        shared = name in homes and parameter.data_ptr() == homes[name].data_ptr()
        assert shared == (id(parameter) not in adapting), f"{name}: in the source's storage: {shared}"
    with adapted.source() as source:
        for name, parameter in source.named_parameters(remove_duplicate=False):
            assert parameter.data_ptr() == homes[name].data_ptr(), f"{name} of source() is a copy"
    own = [buffer.data_ptr() for buffer in model.buffers() if buffer.numel()]
    for name, buffer in adapted.module.named_buffers():
        assert buffer.numel() == 0 or buffer.data_ptr() not in own, f"buffer {name} lies in the source's storage"


def check_source_block(method: Subject, factory: Factory, batch: Batches) -> None:
    """Within `source()` the answers are the unadapted model's, and nothing is learned."""
    adapted, twin = warmed(method, factory, batch), warmed(method, factory, batch)
    with adapted.source() as source:
        for x in later_batches(batch):
            found = source(x)
            assert_same(found, source_answer(factory, x), "the answer within source()")
            assert not any(tensor.requires_grad for tensor in flat(found))
    same_future(adapted, twin, batch, "after source()")


def check_frozen(method: Subject, factory: Factory, batch: Batches) -> None:
    """Within `frozen()` the same input has the same answer, and nothing is learned."""
    adapted, twin = warmed(method, factory, batch), warmed(method, factory, batch)
    with adapted.frozen() as same:
        assert same is adapted and not adapted.adapting
        x = batch(50)
        first = adapted(x)
        adapted(batch(51))
        assert_same(adapted(x), first, "a second frozen answer")
        assert not adapted.last.updated
    assert adapted.adapting
    same_future(adapted, twin, batch, "after frozen()")


def check_dropout(method: Subject, factory: Factory, batch: Batches) -> None:
    """Train mode, before or after wrapping, changes nothing: dropout never turns on."""
    expected, train = make(method, lambda: factory().eval()), make(method, lambda: factory().train())
    train.train()
    same_future(train, expected, batch, "of a model given in train mode")
    with train.source() as source:
        assert_same(source(batch(3)), source_answer(factory, batch(3)), "source answer of a model in train mode")
    on = [name for name, module in train.module.named_modules() if module.training]
    assert not on, f"in train mode: {on}"


def check_tenants(method: Subject, factory: Factory, batch: Batches) -> None:
    """Two adaptations over one model do not see each other."""
    model = factory()
    first, second = (acclimate.adapt(model, method, seed=5) for _ in range(2))
    answers(first, map(batch, range(WARM)))
    alone = make(method, factory, seed=5)
    same_future(second, alone, batch, "of a second adaptation over the same model")
