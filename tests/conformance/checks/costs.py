"""Costs are stated and counted: passes, bytes of state, memory of a step."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from acclimate.anatomy import blocks
from acclimate.core.memory import policies
from acclimate.core.normalization import normalizations
from conformance.tools import Batches, Factory, Subject, answers, build, flat, make, source_answer, source_modules

from .common import faulty, same_future, warmed


def check_passes(method: Subject, factory: Factory, batch: Batches) -> None:
    """Forwards and backwards, counted by the model itself, are those of the report and within the stated cost.

    `cost()` speaks of one repetition and of stateless normalisation; one that observes first costs its passes more,
    and a memory policy that probes what it says it does.
    The stated cost is reached by the dearest of the steps; cheaper ones (nothing selected) are fine. Forwards over
    selected rows come on top, at most as many as stated; per-sample methods go backward once for each row.
    """
    adapted, fault = faulty(method, factory)
    stateless = dataclasses.replace(adapted.method, normalization="batch").cost()
    observing = normalizations.build(adapted.method.normalization).passes()
    repeats = adapted.method.steps
    probe, probes = policies.build(adapted.method.memory).passes(len(batch(0)), adapted.state.weights.values())
    seen: list[tuple[float, int]] = []
    for number in range(6):
        fault.rows.clear()
        fault.backwards = 0
        x = batch(number)
        adapted(x)
        forwards = sum(fault.rows) / len(x)
        assert adapted.last.forwards == forwards, f"reported {adapted.last.forwards} forwards, made {forwards}"
        assert adapted.last.backwards == fault.backwards, f"reported {adapted.last.backwards}, made {fault.backwards}"
        seen.append((forwards - probe, fault.backwards - probes))
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
    original = dataclasses.replace(build(method), normalization="batch", memory="stock")
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
        "feature square": 4 * width[0] ** 2,
        "block feature": 4 * width[0] * len(blocks(factory())),
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
    adapted, twin = warmed(method, factory, batch), warmed(method, factory, batch)
    measured = adapted.memory(batch(30))
    assert measured.saved is not None and measured.predicted is not None
    cost = adapted.method.cost()
    exact = policies.build(adapted.method.memory).name == "stock"  # a policy leaves tiny tensors alone
    if exact and "sample" not in cost.memory and not cost.selected:
        assert abs(measured.predicted - measured.saved) <= 0.05 * max(measured.saved, 1)
    source = factory()
    assert measured.model == sum(t.numel() * t.element_size() for t in (*source.parameters(), *source.buffers()))
    assert measured.total == sum(measured.state.values()) + measured.rollback + measured.saved
    for count in (1, 2, 3):
        adapted.memory(batch(30)[:count])
    same_future(adapted, twin, batch, "after memory()")
