"""The promises as functions: `check_*(method, model_factory, batch)`, for any method, also from other packages.

`method` is a name, a preset or an instance; `model_factory()` builds the same source model each time, and
`batch(n)` gives the n-th batch of a stream, `[8, ...]`, fit to learn from. Each function raises AssertionError
when the promise in its docstring is broken. `ALL` lists them.

Everything is compared bit for bit, with another instance that took the other road, never with recorded output.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import acclimate
from acclimate.adapted import Adapted
from acclimate.core.merged import merged as plain_copy
from acclimate.core.normalization import normalizations

from .tools import (
    Batches,
    Factory,
    Fault,
    Faulty,
    Subject,
    answers,
    assert_same,
    bits,
    book,
    breaking,
    build,
    flat,
    make,
    merge,
    quiet,
    source_answer,
    source_modules,
    verdict_deferred,
)

WARM = 3
"""Batches before the event under test, so that optimisers, banks and generators are in motion."""


def _warm(method: Subject, factory: Factory, batch: Batches, **options: Any) -> Adapted:
    adapted = make(method, factory, **options)
    answers(adapted, map(batch, range(WARM)))
    return adapted


def _later(batch: Batches, count: int = 3) -> list[Tensor]:
    return [batch(100 + number) for number in range(count)]


def _same_future(found: Adapted, expected: Adapted, batch: Batches, what: str) -> None:
    """Equal now, and equal in all that follows."""
    assert_same(book(found), book(expected), f"state {what}")
    later = _later(batch)
    assert_same(answers(found, later), answers(expected, later), f"answers {what}")
    assert_same(book(found), book(expected), f"state after further batches {what}")


def check_learns(method: Subject, factory: Factory, batch: Batches) -> None:
    """The stream makes the method learn; on one that does not, the other checks would prove little.

    Steps are kept, every kind of declared state moves, and what weights have learned reaches the answers.
    """
    adapted = make(method, factory)
    fresh = {name: bits(slot.tensor) for name, slot in adapted.state.table.entries()}
    kept, kinds, moved = 0, set[str](), set[str]()
    for number in range(WARM):
        adapted(batch(number))
        kept += adapted.last.updated
        slots = dict(adapted.state.table.entries())
        kinds |= {slot.kind for slot in slots.values()}
        moved |= {slot.kind for name, slot in slots.items() if bits(slot.tensor) != fresh.get(name)}
    assert kept, f"no step was kept: {adapted.last.reason}"
    assert moved == kinds, f"of {sorted(kinds)} only {sorted(moved)} moved"
    if adapted.state.weights and not adapted.last.verdict.idle:
        with adapted.frozen():
            before = adapted(batch(80))
            adapted.reset()
            after = adapted(batch(80))
        assert bits(flat(before)[0]) != bits(flat(after)[0]), "what was learned does not reach the answers"


# -- the source is never lost --------------------------------------------------------------------------


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
    adapted, twin = _warm(method, factory, batch), _warm(method, factory, batch)
    with adapted.source() as source:
        for x in _later(batch):
            found = source(x)
            assert_same(found, source_answer(factory, x), "the answer within source()")
            assert not any(tensor.requires_grad for tensor in flat(found))
    _same_future(adapted, twin, batch, "after source()")


def check_frozen(method: Subject, factory: Factory, batch: Batches) -> None:
    """Within `frozen()` the same input has the same answer, and nothing is learned."""
    adapted, twin = _warm(method, factory, batch), _warm(method, factory, batch)
    with adapted.frozen() as same:
        assert same is adapted and not adapted.adapting
        x = batch(50)
        first = adapted(x)
        adapted(batch(51))
        assert_same(adapted(x), first, "a second frozen answer")
        assert not adapted.last.updated
    assert adapted.adapting
    _same_future(adapted, twin, batch, "after frozen()")


def check_dropout(method: Subject, factory: Factory, batch: Batches) -> None:
    """Train mode, before or after wrapping, changes nothing: dropout never turns on."""
    expected, train = make(method, lambda: factory().eval()), make(method, lambda: factory().train())
    train.train()
    _same_future(train, expected, batch, "of a model given in train mode")
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
    _same_future(second, alone, batch, "of a second adaptation over the same model")


# -- state -----------------------------------------------------------------------------------------------


def check_reset(method: Subject, factory: Factory, batch: Batches) -> None:
    """After any number of batches `reset()` gives a freshly built adaptation, counters and generators included."""
    adapted = _warm(method, factory, batch)
    adapted.reset()
    _same_future(adapted, make(method, factory), batch, "after reset()")


def check_snapshot(method: Subject, factory: Factory, batch: Batches) -> None:
    """`restore` is exact, however often, and independent of what happened in between."""
    adapted, fresh = _warm(method, factory, batch), make(method, factory)
    start = adapted.snapshot()
    before, later = book(adapted), _later(batch)
    first = answers(adapted, later)
    for event in (lambda: None, adapted.reset, lambda: adapted(batch(60))):
        event()
        adapted.restore(start)
        assert_same(book(adapted), before, "state after restore()")
        assert_same(answers(adapted, later), first, "answers after restore()")
    empty = fresh.snapshot("empty")
    answers(fresh, later)
    fresh.restore(empty)
    _same_future(fresh, make(method, factory), batch, "after restoring a snapshot from before the first batch")


def check_deepcopy(method: Subject, factory: Factory, batch: Batches) -> None:
    """A deep copy of an adaptation under way goes on like the original, and neither moves the other."""
    adapted, twin = _warm(method, factory, batch), _warm(method, factory, batch)
    copied = copy.deepcopy(adapted)
    held = [slot.tensor for _, slot in adapted.state.table.entries()]
    assert not any(tensor.requires_grad and tensor.grad_fn is not None for tensor in held), "state drags a graph along"
    _same_future(copied, twin, batch, "of a deep copy")
    _same_future(adapted, _warm(method, factory, batch), batch, "of what was copied")


def check_save(method: Subject, factory: Factory, batch: Batches) -> None:
    """Saved, loaded and continued equals never having stopped; saving changes nothing."""
    adapted, twin = _warm(method, factory, batch), _warm(method, factory, batch)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "state.safetensors"
        adapted.save(path)
        assert_same(book(adapted), book(twin), "state after save()")
        loaded = acclimate.load(factory(), path, method=None if isinstance(method, str) else method)
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert loaded.answer == adapted.answer and loaded.method.config() == adapted.method.config()
    _same_future(loaded, twin, batch, "after load()")
    loaded.reset()
    _same_future(loaded, make(method, factory), batch, "after load() and reset()")


def check_seeds(method: Subject, factory: Factory, batch: Batches) -> None:
    """Randomness is private and seeded: global generators untouched, equal seeds equal, other seeds different."""
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002 (the global generator is what is watched)
    random.seed(11)
    model = factory()
    before = _globals()
    adapted = acclimate.adapt(model, method, seed=3)
    answers(adapted, map(batch, range(WARM)))
    with tempfile.TemporaryDirectory() as folder:
        adapted.save(Path(folder) / "state")
        acclimate.load(model, Path(folder) / "state", method=None if isinstance(method, str) else method)
    adapted.snapshot("a")
    adapted.restore("a")
    adapted.reset()
    merge(adapted)
    assert _globals() == before, "a global random generator moved"
    torch.manual_seed(99)
    _same_future(adapted, make(method, factory, seed=3), batch, "under another global seed")
    other = make(method, factory, seed=4)
    for name, generator in other.state.table.generators.items():
        states = [bits(g.get_state()) for g in (generator, make(method, factory, seed=3).state.generator(name))]
        assert states[0] != states[1], f"generator {name} does not depend on the seed"


def _globals() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return bits(torch.get_rng_state()), kind, keys.tobytes(), tuple(rest), random.getstate()


def check_merged(method: Subject, factory: Factory, batch: Batches) -> None:
    """`merged()` is a plain copy that answers like the frozen adaptation and shares no storage with anything.

    Methods whose answers no plain model gives refuse by ValueError; their frozen answers are then not the model's.
    """
    adapted = _warm(method, factory, batch)
    merged, x = merge(adapted), batch(70)
    if merged is None:
        adapted.state.channels_last = False
        plain = plain_copy(adapted.unwrap(), adapted.module, adapted.state.layers)(x)
        with adapted.frozen():
            assert bits(flat(adapted(x))[0]) != bits(flat(plain)[0]), "merged() refused without need"
        return
    adapted.state.channels_last = False  # the plain copy runs in the layout it is given, which rounds differently
    with adapted.frozen(), torch.no_grad():
        torch.testing.assert_close(flat(merged(x)), flat(adapted(x)), rtol=1e-5, atol=1e-6)
    everything = (adapted.unwrap(), adapted.module)
    owned = {t.data_ptr() for m in everything for t in (*m.parameters(), *m.buffers()) if t.numel()}
    for name, tensor in (*merged.named_parameters(), *merged.named_buffers()):
        assert tensor.numel() == 0 or tensor.data_ptr() not in owned, f"{name} is shared"
    flags = {name: parameter.requires_grad for name, parameter in adapted.unwrap().named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in merged.named_parameters()} == flags


# -- transactions ----------------------------------------------------------------------------------------


def bad_batches(x: Tensor) -> dict[str, Tensor]:
    """Batches that nothing may be learned from, by name."""
    if not x.is_floating_point():
        return {"empty": x[:0], "rank": x[0]}
    speck = torch.zeros_like(x)
    speck.flatten(1)[:, 0] = 1
    bad = {
        "NaN": x.masked_fill(speck > 0, float("nan")),
        "Inf": x.masked_fill(speck > 0, float("inf")),
        "-Inf": x.masked_fill(speck > 0, -float("inf")),
        "1e30": x.masked_fill(speck > 0, 1e30),
        "identical": x[:1].expand_as(x).contiguous(),
        "two identical": x[:1].repeat(2, *(1,) * (x.ndim - 1)),
        "rank": x[0],
        "axis": x[None],
        "channels": torch.cat([x, x[:, :1]], 1),
        "uint8": (x * 255).to(torch.uint8),
        "float64": x.double(),
        "empty": x[:0],
        "no pixels": x[..., :0],
    }
    if x.ndim > 2:
        bad |= {"black": torch.zeros_like(x), "constant": torch.full_like(x, 0.5)}
    return bad


def bad_rows(x: Tensor) -> dict[str, Tensor]:
    """The batch with its fourth row spoiled, by what is wrong with it."""
    kinds = ("NaN", "Inf", "-Inf", "1e30", "black", "constant")
    return {kind: torch.cat([x[:3], spoiled[3:4], x[4:]]) for kind, spoiled in bad_batches(x).items() if kind in kinds}


def check_bad_batches(method: Subject, factory: Factory, batch: Batches) -> None:
    """A batch unfit to learn from is refused by ValueError or answered by the source, and leaves no trace."""
    adapted, twin = make(method, factory), make(method, factory)
    for number in range(2):
        for kind, bad in bad_batches(batch(number)).items():
            try:
                found = adapted(bad)
            except ValueError as error:
                assert str(error), kind
            else:
                assert_same(found, source_answer(factory, bad), f"the answer to a batch of kind {kind}")
                assert not adapted.last.updated and adapted.last.reason, kind
            assert_same(book(adapted), book(twin), f"state after a batch of kind {kind}")
        assert_same(answers(adapted, _later(batch)), answers(twin, _later(batch)), "answers after bad batches")
    _same_future(adapted, twin, batch, "after bad batches")


def check_bad_rows(method: Subject, factory: Factory, batch: Batches) -> None:
    """One bad row of eight: it is answered by the source, and the rest counts as the batch of seven good ones."""
    adapted, twin = make(method, factory), make(method, factory)
    good = torch.arange(8) != 3
    for number in range(2):
        for kind, bad in bad_rows(batch(number)).items():
            found, expected = adapted(bad), twin(bad[good.to(bad.device)])
            for ours, theirs in zip(flat(found), flat(expected), strict=True):
                assert_same(ours[good.to(ours.device)], theirs, f"good rows beside one of kind {kind}")
            for ours, theirs in zip(flat(found), flat(source_answer(factory, bad[3:4])), strict=True):
                assert_same(ours[3:4], theirs, f"a row of kind {kind}")
            assert adapted.last.held >= 1 and adapted.last.samples == 8
            assert_same(book(adapted), book(twin), f"state after a row of kind {kind}")
    _same_future(adapted, twin, batch, "after bad rows")


def _faulty(method: Subject, factory: Factory, **options: Any) -> tuple[Adapted, Fault]:
    fault = Fault()
    return acclimate.adapt(Faulty(factory(), fault), method, **options), fault


def check_exceptions(method: Subject, factory: Factory, batch: Batches) -> None:
    """Whatever is raised, in any forward of a step or in the method itself, leaves no trace."""
    twin, fault = _faulty(method, factory)
    answers(twin, [batch(0)])
    passes = len(fault.rows)
    for warm in (0, 2):
        for error in (RuntimeError, ValueError, KeyboardInterrupt):
            for countdown in range(1, min(passes, 4) + 1):
                adapted, fault = _faulty(method, factory)
                twin, _ = _faulty(method, factory)
                for each in (adapted, twin):
                    answers(each, map(batch, range(warm)))
                fault.countdown, fault.error = countdown, error
                if not _raises(error, lambda a=adapted: a(batch(40))):
                    continue
                _same_future(adapted, twin, batch, f"after {error.__name__} in forward {countdown}, {warm} batches in")
            armed: list[bool] = []
            adapted = make(breaking(method, error, armed), factory)
            answers(adapted, map(batch, range(warm)))
            armed.append(True)
            assert _raises(error, lambda a=adapted: a(batch(40)))
            armed.clear()
            twin = make(method, factory)
            answers(twin, map(batch, range(warm)))
            _same_future(adapted, twin, batch, f"after {error.__name__} at the end of the step")


def _raises(error: type[BaseException], call: Callable[[], Any]) -> bool:
    try:
        call()
    except error:
        return True
    return False


def check_bad_gradients(method: Subject, factory: Factory, batch: Batches) -> None:
    """A finite loss with a gradient that is NaN or infinite: refused and undone, optimiser and generators too.

    One so large that squares overflow is refused likewise, or (where only its sign counts) harmless.
    """
    for warm in (0, WARM):
        for factor in (float("nan"), float("inf"), 1e25):
            adapted, fault = _faulty(method, factory)
            twin, _ = _faulty(method, factory)
            for each in (adapted, twin):
                answers(each, map(batch, range(warm)))
            fault.gradient, fault.backwards = factor, 0
            found = adapted(batch(40))
            fault.gradient = None
            assert all(bool(t.isfinite().all()) for t in flat(found)), "an answer is not finite"
            if not fault.backwards:
                return
            if factor == 1e25 and not adapted.last.verdict.refused:
                assert all(bool(s.tensor.isfinite().all()) for _, s in adapted.state.table.entries())
                assert all(bool(t.isfinite().all()) for t in answers(adapted, _later(batch)))
                continue
            assert adapted.last.verdict.refused, f"gradients times {factor} were learned from"
            _same_future(adapted, twin, batch, f"after gradients times {factor}, {warm} batches in")


def check_explosion(method: Subject, factory: Factory, batch: Batches) -> None:
    """A learning rate that would blow the weights up: refused or undone, answers stay those of the state before."""
    original = build(method)
    if not hasattr(original, "learning_rate"):
        return
    adapted = make(dataclasses.replace(original, learning_rate=1e12), factory)
    begin, later = book(adapted), _later(batch)
    for x in later:
        before = book(adapted)
        assert all(bool(t.isfinite().all()) for t in flat(adapted(x)))
        if not adapted.last.updated and adapted.last.verdict.refused:
            assert_same(book(adapted), before, "state after an explosion")
    weights = [key for key in begin if key.startswith("module ")]
    moved = {key for key in weights if book(adapted)[key] != begin[key]}
    statistics = {f"module {name}" for name, s in adapted.state.table.slots.items() if s.kind != "weights"}
    assert moved <= statistics, f"weights moved at a rate of 1e12: {sorted(moved)[:4]}"


def check_deferred(method: Subject, factory: Factory, batch: Batches) -> None:
    """The same promises where the verdict is read only when something next looks at the state."""
    with verdict_deferred():
        for check in (check_bad_gradients, check_explosion, check_reset, check_snapshot, check_save, check_bad_rows):
            check(method, factory, batch)
        for look in (Adapted.snapshot, merge, Adapted.memory, _save, _freeze, _look_at_source):
            adapted, fault = _faulty(method, factory)
            twin, _ = _faulty(method, factory)
            for each in (adapted, twin):
                answers(each, map(batch, range(WARM)))
            fault.gradient, fault.backwards = float("nan"), 0
            adapted(batch(40))
            fault.gradient = None
            if not fault.backwards:
                return
            look(adapted)
            _same_future(adapted, twin, batch, f"after a refused step and {look.__name__}")


def _save(adapted: Adapted) -> None:
    with tempfile.TemporaryDirectory() as folder:
        adapted.save(Path(folder) / "state")


def _freeze(adapted: Adapted) -> None:
    with adapted.frozen():
        pass


def _look_at_source(adapted: Adapted) -> None:
    with adapted.source():
        pass


# -- callers ---------------------------------------------------------------------------------------------


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
    later = _later(batch)
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
    twin, other = _warm(method, factory, batch), make(method, factory)
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
        _same_future(adapted, twin, batch, "after snapshot, reset and restore under inference_mode")
        adapted.restore("a")
        twin = _warm(method, factory, batch)
        _same_future(loaded, twin, batch, "after load under inference_mode")
    with torch.inference_mode():
        loaded.reset()
    _same_future(loaded, other, batch, "after reset under inference_mode")


def check_outputs(method: Subject, factory: Factory, batch: Batches) -> None:
    """Answers carry no graph, share no storage with the state, and stay as they were when they were given."""
    adapted, twin = make(method, factory), make(method, factory)
    kept: list[tuple[Any, list[Any]]] = []
    for x in (*_later(batch), _later(batch)[0]):
        found = adapted(x)
        twin(x)
        for tensor in flat(found):
            assert not tensor.requires_grad and tensor.grad_fn is None
        kept.append((found, [bits(tensor) for tensor in flat(found)]))
    for found, before in kept:
        assert [bits(tensor) for tensor in flat(found)] == before, "an earlier answer changed"
        for tensor in flat(found):
            tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor.zero_()
    _same_future(adapted, twin, batch, "after the caller wrote over its answers")


def check_answer_after(method: Subject, factory: Factory, batch: Batches) -> None:
    """`answer="after"` learns the same and answers as a frozen model would right after the step."""
    after, before = make(method, factory, answer="after"), make(method, factory)
    for x in _later(batch):
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
        adapted = _warm(method, factory, batch)
        adapted(batch(5)[:1])
        repr(adapted)
        adapted.memory(batch(0))
        check_save(method, factory, batch)


# -- costs -----------------------------------------------------------------------------------------------


def check_passes(method: Subject, factory: Factory, batch: Batches) -> None:
    """Forwards and backwards, counted by the model itself, are those of the report and within the stated cost.

    `cost()` speaks of one repetition and of stateless normalisation; one that observes first costs a forward more.
    The stated cost is reached by the dearest of the steps; cheaper ones (nothing selected) are fine. Forwards over
    selected rows come on top, at most as many as stated; per-sample methods go backward once for each row.
    """
    adapted, fault = _faulty(method, factory)
    stateless = dataclasses.replace(adapted.method, normalization="batch").cost()
    observing = int(normalizations.build(adapted.method.normalization).observes)
    repeats = adapted.method.steps
    seen: list[tuple[float, int]] = []
    for number in range(6):
        fault.rows.clear()
        fault.backwards = 0
        x = batch(number)
        adapted(x)
        forwards = sum(fault.rows) / len(x)
        assert adapted.last.forwards == forwards, f"reported {adapted.last.forwards} forwards, made {forwards}"
        assert adapted.last.backwards == fault.backwards, f"reported {adapted.last.backwards}, made {fault.backwards}"
        seen.append((forwards, fault.backwards))
    rows = len(batch(0)) if stateless.each == "sample" else 1
    least, most = (stateless.forwards + observing) * repeats, (stateless.forwards + stateless.selected) * repeats
    dearest, backwards = max(f for f, _ in seen), max(b for _, b in seen)
    assert least <= dearest <= most + observing * repeats, f"stated {least} to {most} forwards, made at most {dearest}"
    assert backwards == stateless.backwards * repeats * rows, f"made at most {backwards} backwards"
    with adapted.frozen():
        fault.rows.clear()
        adapted(batch(0))
        assert adapted.last.forwards == sum(fault.rows) / len(batch(0)) == 1 and adapted.last.backwards == 0


def check_state_bytes(method: Subject, factory: Factory, batch: Batches) -> None:
    """State by kind is exactly what `cost()` says, under a normalisation without state of its own.

    Expected: for each kind `copies[kind]` times the bytes of the adapted tensors. Beyond that only `per_tensor`
    numbers for each adapted tensor and `per_class` for each class, 4 bytes each, kind "statistics"; what a bank
    keeps by the units of `Cost.memory`, kind "memory"; and of kind "counters" the optimiser's 0-dim step counts, 4
    bytes for each adapted tensor that has one, and single numbers that stand in its groups.
    """
    original = dataclasses.replace(build(method), normalization="batch")
    adapted = make(original, factory)
    found: dict[str, int] = {}
    for number in range(8):
        answers(adapted, [batch(number)])
        held = dict(adapted.memory().state)
        found = {kind: max(held.get(kind, 0), found.get(kind, 0)) for kind in (*held, *found)}  # a reset frees some
    model, cost = adapted.module, original.cost()
    source = {**adapted.state.weights, **dict(factory().named_parameters())}
    moved = sum(source[name].numel() * source[name].element_size() for name in adapted.state.weights)
    classes = flat(source_answer(factory, batch(0)))[0].shape[1]
    width = [module.in_features for module in source_modules(factory) if isinstance(module, nn.Linear)][-1:] or [0]
    units = {
        "sample": batch(0)[:1].numel() * batch(0).element_size(),
        "feature": 4 * width[0],
        "class": 4 * classes,
        "class feature": 4 * classes * width[0],
        "number": 4,
    }
    vectors = 4 * (cost.per_tensor * len(adapted.state.weights) + cost.per_class * classes + cost.numbers)
    expected = {kind: round(share * moved) for kind, share in cost.copies.items()}
    if vectors:
        expected["statistics"] = expected.get("statistics", 0) + vectors
    expected["memory"] = sum(units[unit] * count for unit, count in cost.memory.items())
    counters = found.pop("counters", 0)
    buffers = found.pop("buffers", 0)
    optimizers = [tracked.optimizer for tracked in adapted.state.table.optimizers.values()]
    settings = [v for each in optimizers for group in each.param_groups for k, v in group.items() if k != "params"]
    singles = 4 * sum(isinstance(value, Tensor) and value.numel() == 1 for value in settings)
    assert counters - singles in (0, 4 * len(adapted.state.weights)), f"{counters} bytes of counters"
    assert buffers == 0 or any(True for _ in model.buffers())
    assert found == {kind: size for kind, size in expected.items() if size}, f"cost() states {expected}, found {found}"
    exported, _ = adapted.state.table.export()
    independent = sum(t.numel() * t.element_size() for n, t in exported.items() if not n.startswith("generator/"))
    assert sum(held.values()) == independent == adapted.last.state_bytes


def check_memory(method: Subject, factory: Factory, batch: Batches) -> None:
    """`memory(x)` measures a step and leaves no trace; the prediction from two smaller batches holds within 5 %.

    Not so where a step learns from kept samples or chosen rows: what that saves does not grow with the batch.
    """
    adapted, twin = _warm(method, factory, batch), _warm(method, factory, batch)
    measured = adapted.memory(batch(30))
    assert measured.saved is not None and measured.predicted is not None
    cost = adapted.method.cost()
    if "sample" not in cost.memory and not cost.selected:
        assert abs(measured.predicted - measured.saved) <= 0.05 * max(measured.saved, 1)
    source = factory()
    assert measured.model == sum(t.numel() * t.element_size() for t in (*source.parameters(), *source.buffers()))
    assert measured.total == sum(measured.state.values()) + measured.rollback + measured.saved
    for count in (1, 2, 3):
        adapted.memory(batch(30)[:count])
    _same_future(adapted, twin, batch, "after memory()")


ALL: tuple[Callable[[Subject, Factory, Batches], None], ...] = tuple(
    value for name, value in list(globals().items()) if name.startswith("check_")
)
"""Every check of this module."""
