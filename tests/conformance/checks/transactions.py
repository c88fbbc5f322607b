"""One step is a transaction: it is whole, or as if it had never been."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.adapted import Adapted
from conformance.tools import (
    Batches,
    Factory,
    Subject,
    answers,
    assert_same,
    book,
    breaking,
    build,
    flat,
    make,
    merge,
    source_answer,
    verdict_deferred,
)

from .common import WARM, faulty, later_batches, same_future
from .state import check_reset, check_save, check_snapshot


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
        assert_same(
            answers(adapted, later_batches(batch)), answers(twin, later_batches(batch)), "answers after bad batches"
        )
    same_future(adapted, twin, batch, "after bad batches")


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
    same_future(adapted, twin, batch, "after bad rows")


def check_exceptions(method: Subject, factory: Factory, batch: Batches) -> None:
    """Whatever is raised, in any forward of a step or in the method itself, leaves no trace."""
    twin, fault = faulty(method, factory)
    answers(twin, [batch(0)])
    passes = len(fault.rows)
    for warm in (0, 2):
        for error in (RuntimeError, ValueError, KeyboardInterrupt):
            # where it is raised and what is raised are looked at one by one: a step does not ask which error it was
            for countdown in range(1, (min(passes, 4) if error is RuntimeError else 1) + 1):
                adapted, fault = faulty(method, factory)
                twin, _ = faulty(method, factory)
                for each in (adapted, twin):
                    answers(each, map(batch, range(warm)))
                fault.countdown, fault.error = countdown, error
                if not _raises(error, lambda a=adapted: a(batch(40))):
                    continue
                same_future(adapted, twin, batch, f"after {error.__name__} in forward {countdown}, {warm} batches in")
            armed: list[bool] = []
            adapted = make(breaking(method, error, armed), factory)
            answers(adapted, map(batch, range(warm)))
            armed.append(True)
            assert _raises(error, lambda a=adapted: a(batch(40)))
            armed.clear()
            twin = make(method, factory)
            answers(twin, map(batch, range(warm)))
            same_future(adapted, twin, batch, f"after {error.__name__} at the end of the step")


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
            adapted, fault = faulty(method, factory)
            twin, _ = faulty(method, factory)
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
                assert all(bool(t.isfinite().all()) for t in answers(adapted, later_batches(batch)))
                continue
            assert adapted.last.verdict.refused, f"gradients times {factor} were learned from"
            same_future(adapted, twin, batch, f"after gradients times {factor}, {warm} batches in")


def check_explosion(method: Subject, factory: Factory, batch: Batches) -> None:
    """A learning rate that would blow the weights up: refused or undone, answers stay those of the state before."""
    original = build(method)
    if not hasattr(original, "learning_rate"):
        return
    adapted = make(dataclasses.replace(original, learning_rate=1e12), factory)
    begin, later = book(adapted), later_batches(batch)
    for x in later:
        before = book(adapted)
        assert all(bool(t.isfinite().all()) for t in flat(adapted(x)))
        if not adapted.last.updated and adapted.last.verdict.refused:
            assert_same(book(adapted), before, "state after an explosion")
    weights = [key for key in begin if key.startswith("module ")]
    moved = {key for key in weights if book(adapted)[key] != begin[key]}
    declared = {id(slot.tensor) for slot in adapted.state.table.slots.values() if slot.kind != "weights"}
    statistics = {f"module {name}" for name, buffer in adapted.module.named_buffers() if id(buffer) in declared}
    assert moved <= statistics, f"weights moved at a rate of 1e12: {sorted(moved)[:4]}"


def check_deferred(method: Subject, factory: Factory, batch: Batches) -> None:
    """The same promises where the verdict is read only when something next looks at the state."""
    with verdict_deferred():
        for check in (check_bad_gradients, check_explosion, check_reset, check_snapshot, check_save, check_bad_rows):
            check(method, factory, batch)
        for look in (Adapted.snapshot, merge, Adapted.memory, _save, _freeze, _look_at_source):
            adapted, fault = faulty(method, factory)
            twin, _ = faulty(method, factory)
            for each in (adapted, twin):
                answers(each, map(batch, range(WARM)))
            fault.gradient, fault.backwards = float("nan"), 0
            adapted(batch(40))
            fault.gradient = None
            if not fault.backwards:
                return
            look(adapted)
            same_future(adapted, twin, batch, f"after a refused step and {look.__name__}")


def _save(adapted: Adapted) -> None:
    with tempfile.TemporaryDirectory() as folder:
        adapted.save(Path(folder) / "state")


def _freeze(adapted: Adapted) -> None:
    with adapted.frozen():
        pass


def _look_at_source(adapted: Adapted) -> None:
    with adapted.source():
        pass
