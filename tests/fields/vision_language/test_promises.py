"""What every method of the field promises, as all methods do, and that it takes no labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from _pytest.mark import ParameterSet

import acclimate
from acclimate.fields.vision_language import registry
from conformance import checks
from conformance.tools import assert_same, bits, book, verdict_deferred

from .subjects import KEEPING, NAMES, batch, factory, for_features, model_of, over, subject
from .world import world

OFTEN = (
    checks.learning.check_learns,
    checks.state.check_reset,
    checks.state.check_snapshot,
    checks.source.check_frozen,
    checks.source.check_tenants,
    checks.transactions.check_bad_batches,
    checks.transactions.check_bad_rows,
)
SLOW = (
    checks.state.check_save,
    checks.state.check_deepcopy,
    checks.state.check_seeds,
    checks.state.check_merged,
    checks.source.check_unwrap,
    checks.source.check_overlay,
    checks.source.check_source_block,
    checks.source.check_dropout,
    checks.callers.check_batch_of_one,
    checks.callers.check_callers,
    checks.callers.check_quiet,
)
"""What tests of features below look at as well, in less time."""


def cases() -> list[ParameterSet]:
    """What keeps nothing of the stream, as TPT does beyond an image, need not learn."""
    return [
        pytest.param(name, check, id=f"{name}-{check.__name__[6:]}", marks=(pytest.mark.slow,) * (check in SLOW))
        for name in NAMES
        for check in (*OFTEN, *SLOW)
        if name in KEEPING or check is not checks.learning.check_learns
    ]


@pytest.mark.parametrize(("name", "check"), cases())
def test_promise_of_the_house(name: str, check: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """On images; the promise is in the docstring of the check."""
    told = checks.transactions.bad_batches
    # one more axis makes views of one image out of eight images, which is nothing bad here
    monkeypatch.setattr(
        checks.transactions, "bad_batches", lambda x: {kind: bad for kind, bad in told(x).items() if kind != "axis"}
    )
    check(subject(name), factory, batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_promises_where_the_verdict_is_read_late(name):
    with verdict_deferred():
        for check in (checks.state.check_reset, checks.state.check_snapshot, checks.transactions.check_bad_rows):
            check(subject(name), factory, batch)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_stream_goes_on_bit_for_bit(name, tmp_path):
    """By its name alone, and by an instance; and what it is reset to is what it was reset to before."""
    of = world(2, images=36, views=5)
    adapted, twin = over(name, of), over(name, of)
    batches = list(of.batches(9))
    for x, z in batches[:2]:
        adapted(x, auxiliary=z), twin(x, auxiliary=z)
    adapted.save(tmp_path / "state")
    for method in (None, for_features(name, of)):
        loaded = acclimate.load(model_of(name, of), tmp_path / "state", method=method)
        assert_same(book(loaded), book(adapted), "state after load()")
    for x, z in batches[2:]:
        assert_same(loaded(x, auxiliary=z), twin(x, auxiliary=z), "answers after load()")
    assert_same(book(loaded), book(twin), "state in the end")
    loaded.reset()
    assert_same(book(loaded), book(over(name, of)), "state after reset()")


@pytest.mark.parametrize("name", NAMES)
def test_frozen_from_the_start_nothing_is_kept(name):
    of = world(2, images=6, views=5)
    adapted, fresh = over(name, of), over(name, of)
    with adapted.frozen():
        first = of.answers(adapted, 3)
        assert first.isfinite().all()
        assert_same(of.answers(adapted, 3), first, "the same again")
    assert_same(book(adapted), book(fresh), "state")
    assert_same(of.answers(adapted, 6), of.answers(fresh, 6), "answers after it")


@pytest.mark.parametrize("name", NAMES)
def test_the_model_that_came_is_left_alone(name):
    of = world(2, images=30, views=5)
    model = model_of(name, of)
    before = {key: bits(value) for key, value in model.state_dict().items()}
    alone = model(of.views)
    adapted = acclimate.adapt(model, for_features(name, of), guard=None)
    of.answers(adapted, 10)
    assert adapted.unwrap() is model and "derived" not in model.__dict__
    assert {key: bits(value) for key, value in model.state_dict().items()} == before
    assert_same(model(of.views), alone, "its own answers")
    with adapted.source() as source:
        assert_same(source(of.views), alone, "answers of the source")
    assert torch.equal(adapted.module.text_features, model.text_features)


def test_no_step_takes_labels():
    taken = {"step": ["state", "x"], "respond": ["state", "x"], "answer": ["state", "sample", "learn"]}
    for name, cls in registry.classes().items():
        for verb, arguments in taken.items():
            if hasattr(cls, verb):
                assert list(inspect.signature(getattr(cls, verb)).parameters) == ["self", *arguments], f"{name}.{verb}"
    of = world(2, images=20, views=5)
    with pytest.raises((TypeError, ValueError)):
        over("cosmic", of)(of.views, of.auxiliary, of.labels)
