"""State is declared once: reset, restored, copied, saved, seeded and merged."""

from __future__ import annotations

import copy
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import acclimate
from acclimate.core.merged import merged as plain_copy
from conformance.tools import Batches, Factory, Subject, answers, assert_same, bits, book, flat, make, merge

from .common import WARM, later_batches, same_future, warmed


def check_reset(method: Subject, factory: Factory, batch: Batches) -> None:
    """After any number of batches `reset()` gives a freshly built adaptation, counters and generators included."""
    adapted = warmed(method, factory, batch)
    adapted.reset()
    same_future(adapted, make(method, factory), batch, "after reset()")


def check_snapshot(method: Subject, factory: Factory, batch: Batches) -> None:
    """`restore` is exact, however often, and independent of what happened in between."""
    adapted, fresh = warmed(method, factory, batch), make(method, factory)
    start = adapted.snapshot()
    before, later = book(adapted), later_batches(batch)
    first = answers(adapted, later)
    for event in (lambda: None, adapted.reset, lambda: adapted(batch(60))):
        event()
        adapted.restore(start)
        assert_same(book(adapted), before, "state after restore()")
        assert_same(answers(adapted, later), first, "answers after restore()")
    empty = fresh.snapshot("empty")
    answers(fresh, later)
    fresh.restore(empty)
    same_future(fresh, make(method, factory), batch, "after restoring a snapshot from before the first batch")


def check_deepcopy(method: Subject, factory: Factory, batch: Batches) -> None:
    """A deep copy of an adaptation under way goes on like the original, and neither moves the other."""
    adapted, twin = warmed(method, factory, batch), warmed(method, factory, batch)
    copied = copy.deepcopy(adapted)
    held = [slot.tensor for _, slot in adapted.state.table.entries()]
    assert not any(tensor.requires_grad and tensor.grad_fn is not None for tensor in held), "state drags a graph along"
    same_future(copied, twin, batch, "of a deep copy")
    same_future(adapted, warmed(method, factory, batch), batch, "of what was copied")


def check_save(method: Subject, factory: Factory, batch: Batches) -> None:
    """Saved, loaded and continued equals never having stopped; saving changes nothing."""
    adapted, twin = warmed(method, factory, batch), warmed(method, factory, batch)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "state.safetensors"
        adapted.save(path)
        assert_same(book(adapted), book(twin), "state after save()")
        loaded = acclimate.load(factory(), path, method=None if isinstance(method, str) else method)
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert loaded.answer == adapted.answer and loaded.method.config() == adapted.method.config()
    same_future(loaded, twin, batch, "after load()")
    loaded.reset()
    same_future(loaded, make(method, factory), batch, "after load() and reset()")


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
    same_future(adapted, make(method, factory, seed=3), batch, "under another global seed")
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
    adapted = warmed(method, factory, batch)
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
