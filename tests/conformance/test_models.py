"""Every method on every kind of model: it works, or says at once, in words, what to choose instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.method import methods
from acclimate.models.transformer import VisionTransformer

from .checks import callers, source, state, transactions
from .models import CLASSES, MODELS, Block
from .tools import Batches, Subject, answers, assert_same, book, flat, make, source_answer

REPRESENTATIVES = ("bn:ema", "tent", "palm")
"""A method of each kind (statistics; norms and an optimiser; convolutions, views and two passes) for the long list."""

PECULIAR = (
    "batch_norm_train_mode",
    "batch_norm_without_statistics",
    "sync_batch_norm",
    "group_norm",
    "vit",
    "mlp",
    "tied",
    "buffered",
    "rebuffered",
    "text",
)


def _lacks(method: str, model: nn.Module, images: bool) -> bool:
    """Whether the card's needs are unmet by this model, from its modules alone."""
    needs = methods.classes()[method.partition(":")[0]].card.needs
    modules = list(model.modules())
    batch_norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules)
    kinds = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
    norms = any(isinstance(m, kinds) and m.weight is not None for m in modules)
    convolutions = any(isinstance(m, nn.Conv2d) for m in modules)
    residual = sum(isinstance(m, Block) for m in modules) > 1
    tokens = any(isinstance(m, VisionTransformer) for m in modules)
    return (
        ("batch norm" in needs and not batch_norms)
        or ("norm" in needs and not norms)
        or ("convolution or norm" in needs and not norms and not convolutions)
        or ("augmentation" in needs and not images)
        or ("residual blocks" in needs and not residual and not (tokens and method == "surgical"))
        or ("token sequence" in needs and not tokens)
    )


def _supplied(method: str, batch: Batches) -> Subject:
    """The method, with labelled source images from the same stream if it measures some."""
    built = methods.build(method)
    if "source images" not in built.card.needs:
        return method
    images = torch.cat([batch(50), batch(51)])
    return dataclasses.replace(built, source=(images, torch.arange(len(images)) % CLASSES))  # type: ignore[call-arg]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", methods.classes())
def test_works_or_names_an_alternative(method: str, model: str) -> None:
    factory, batch = MODELS[model]
    spec = _supplied(method, batch)
    if _lacks(method, factory(), batch(0).ndim == 4):
        with pytest.raises(ValueError, match=r"[Cc]hoose|views") as caught:
            acclimate.adapt(factory(), spec)(batch(0))
        message = str(caught.value)
        if "views" not in message:
            assert type(factory()).__name__ in message and "modules looked at" in message
            offered = [name for name in methods.classes() if f" {name}" in message.rpartition(":")[2]]
            assert offered and method not in offered
            assert any(not _lacks(name, factory(), batch(0).ndim == 4) for name in offered)
        return
    try:
        adapted = make(spec, factory)
    except ValueError as error:
        assert model == "batch_norm_without_statistics" and "Choose normalization=" in str(error)
        return
    first = answers(adapted, map(batch, range(3)))
    assert all(tensor.shape == (8, CLASSES) and bool(tensor.isfinite().all()) for tensor in first)
    assert adapted.state.batches == 3
    callers.check_batch_of_one(spec, factory, batch)
    adapted.reset()
    assert_same(book(adapted), book(make(spec, factory)), "state after reset()")
    assert_same(answers(adapted, map(batch, range(3))), first, "answers after reset()")


@pytest.mark.parametrize(
    "check",
    [
        source.check_unwrap,
        source.check_overlay,
        source.check_source_block,
        source.check_frozen,
        source.check_dropout,
        state.check_reset,
        state.check_snapshot,
        state.check_save,
        transactions.check_bad_batches,
        transactions.check_bad_rows,
        transactions.check_bad_gradients,
        state.check_merged,
        callers.check_outputs,
        source.check_tenants,
        callers.check_answer_after,
    ],
    ids=lambda check: check.__name__.removeprefix("check_"),
)
@pytest.mark.parametrize("model", PECULIAR)
@pytest.mark.parametrize("method", REPRESENTATIVES)
def test_promises_on_peculiar_models(method: str, model: str, check: Callable[..., None]) -> None:
    factory, batch = MODELS[model]
    if _lacks(method, factory(), batch(0).ndim == 4):
        pytest.skip("this method does not suit this model, which test_works_or_names_an_alternative covers")
    if method == "bn:ema" and model == "batch_norm_without_statistics":
        pytest.skip("refused, which test_pairs covers")
    if not batch(0).is_floating_point() and check in (transactions.check_bad_rows,):
        pytest.skip("token ids have no bad rows")
    check(method, factory, batch)


@pytest.mark.parametrize("model", ["buffered", "rebuffered"])
def test_buffers_of_the_model_follow_the_answers(model: str) -> None:
    """A buffer that the model updates itself ends at what it counted: the rows that have been answered."""
    factory, batch = MODELS[model]
    adapted = make("tent", factory)
    answers(adapted, map(batch, range(3)))
    assert int(adapted.module.get_buffer("seen")) == 3 * 8
    assert int(adapted.unwrap().get_buffer("seen")) == 0


@pytest.mark.parametrize("model", ["buffered", "rebuffered"])
def test_source_answers_do_not_drift(model: str) -> None:
    """However often it is asked, the source model answers like the model that came in."""
    factory, batch = MODELS[model]
    adapted = make("tent", factory)
    bad = batch(0).masked_fill(torch.tensor(True), float("nan"))
    spoiled = torch.cat([batch(1)[:7], bad[:1]])
    for _ in range(3):
        adapted(spoiled)
        adapted(bad)
        with adapted.source() as source:
            assert_same(source(batch(2)), source_answer(factory, batch(2)), "a later answer of the source")


@pytest.mark.parametrize("model", ["buffered", "rebuffered"])
def test_a_forward_that_raises_leaves_no_trace_in_buffers(model: str) -> None:
    """The very first forward counts its rows and then fails: the count is undone."""
    factory, batch = MODELS[model]
    adapted = make("tent", factory)
    wrong = torch.cat([batch(0), batch(0)], 1)
    with pytest.raises(ValueError, match="expected"):
        adapted(wrong)
    assert_same(book(adapted), book(make("tent", factory)), "state after a forward that raised")
    with adapted.source() as source:
        assert_same(source(batch(2)), source_answer(factory, batch(2)), "an answer of the source")


def test_a_norm_in_two_places_is_one_norm() -> None:
    """A module registered twice is adapted, and normalised, as one: the answers are those of batch statistics."""
    factory, batch = MODELS["tied"]
    model, x = factory().double(), batch(0).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    with torch.no_grad():
        expected = model.eval()(x)
    found = flat(make("bn", lambda: factory().double())(x))[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_tied_weights_stay_tied() -> None:
    factory, batch = MODELS["tied"]
    adapted = make("tent", factory)
    answers(adapted, map(batch, range(2)))
    assert adapted.module.norm1.weight is adapted.module.norm2.weight
    assert adapted.module.norm1.weight is not adapted.unwrap().norm1.weight
    merged = adapted.merged()
    assert merged.norm1.weight is merged.norm2.weight
