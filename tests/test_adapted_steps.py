"""Switches, the report of a step, and what counts as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import acclimate
from acclimate.anatomy import affine_norms
from acclimate.core.state import State
from acclimate.methods.tent import Tent
from conformance.models import CLASSES, MODELS, Mlp, built, images
from conformance.tools import Fault, Faulty, assert_same, book, make, verdict_deferred

FACTORY, BATCH = MODELS["batch_norm"]


def test_train_and_eval_do_not_mean_adapt() -> None:
    adapted, twin = make("tent", FACTORY), make("tent", FACTORY)
    assert adapted.train() is adapted and adapted.training and adapted.adapting
    assert adapted.eval() is adapted and not adapted.training and adapted.adapting
    assert_same(adapted(BATCH(0)), twin(BATCH(0)), "the answer")
    adapted.adapting = False
    before = book(adapted)
    adapted(BATCH(1))
    assert_same(book(adapted), before, "state")
    assert adapted.last.skipped == "frozen"


def test_frozen_blocks_nest_and_survive_errors() -> None:
    adapted = make("tent", FACTORY)
    with adapted.frozen():
        with adapted.frozen():
            assert not adapted.adapting
        assert not adapted.adapting
        with pytest.raises(ValueError, match="expected"):
            adapted(BATCH(0)[:, :1])
    assert adapted.adapting


def test_the_report_of_a_step() -> None:
    adapted = make("tent", FACTORY)
    assert adapted.last is None
    x = BATCH(0)
    found = adapted(x)
    last = adapted.last
    p = found.softmax(1)
    assert last.samples == 8 and last.held == 0 and last.updated and last.reason is None and not last.restarted
    assert last.entropy == pytest.approx(float(-(p * p.log()).sum(1).mean()), rel=1e-5)
    assert last.loss == pytest.approx(last.entropy, rel=1e-5)
    source, now = dict(adapted.unwrap().named_parameters()), adapted.state.weights
    far = torch.cat([(now[n] - source[n]).detach().flatten() for n in now]).norm()
    size = torch.cat([source[n].detach().flatten() for n in now]).norm()
    assert last.distance == pytest.approx(float(far / size), rel=1e-5)
    assert last.milliseconds > 0
    x[0] = float("nan")
    adapted(x)
    assert (adapted.last.samples, adapted.last.held, adapted.last.updated) == (8, 1, True)
    adapted(x[:1])
    assert (adapted.last.samples, adapted.last.held, adapted.last.updated) == (1, 1, False)
    assert adapted.state.batches == 2


def test_reasons_name_what_was_wrong() -> None:
    adapted = make(Tent(learning_rate=1e3), FACTORY)
    adapted(BATCH(0))
    assert "moved the weights" in adapted.last.reason
    fault = Fault()
    adapted = acclimate.adapt(Faulty(FACTORY(), fault), "tent")
    fault.gradient = 1e25
    adapted(BATCH(0))
    assert "not finite" in adapted.last.reason
    assert_same(book(adapted), book(acclimate.adapt(Faulty(FACTORY(), Fault()), "tent")), "state")


def test_episodes_have_no_memory() -> None:
    """An episodic method answers each batch as a freshly built one would."""
    method = Tent(episodic=True, steps=3)
    adapted = make(method, FACTORY)
    for number in range(3):
        assert_same(adapted(BATCH(number)), make(method, FACTORY)(BATCH(number)), f"answer {number}")
        assert adapted.last.restarted
    assert adapted.state.batches == 3


@dataclass(frozen=True, kw_only=True)
class Moody(acclimate.Method):
    """Learns from every other batch only, draws from its generator each time."""

    card: ClassVar[acclimate.Card] = acclimate.Card(summary="test", paper="none", fails_when="always")
    restart: bool = False

    def setup(self, state: State) -> None:
        state.adapt(affine_norms, "norms")
        state.declare("draws", torch.zeros(3), initial=0.0)

    def step(self, state: State, x: Tensor) -> Tensor:
        logits = state.forward(x)
        if self.restart:
            state.restart()
        state["draws"].copy_(torch.rand(3, generator=state.generator("late")))
        with torch.no_grad():
            state.weights["norm1.weight"].mul_(1.01)
        state.learn_if(torch.tensor(state.batches % 2 == 0), "it does not feel like it")
        return logits

    def cost(self) -> acclimate.Cost:
        return acclimate.Cost(forwards=1, backwards=0, copies={"weights": 1})


@pytest.mark.parametrize("deferred", [False, True])
def test_an_unmet_wish_keeps_counters_and_generators_going(deferred: bool) -> None:
    """Nothing is learned, yet the batch counts; the random draws of later batches are fresh ones."""
    with verdict_deferred() if deferred else _nothing():
        adapted = make(Moody(), FACTORY)
        seen = []
        for number in range(4):
            adapted(BATCH(number))
            adapted.settle()
            seen.append((adapted.state["draws"].clone(), adapted.state.weights["norm1.weight"].detach().clone()))
            assert adapted.state.batches == number + 1
            assert adapted.last.updated == (number % 2 == 0)
        own = torch.Generator()
        own.set_state(make(Moody(), FACTORY).state.generator("late").get_state())
        draws = [torch.rand(3, generator=own) for _ in range(4)]
        start = FACTORY().norm1.weight
        once = start * 1.01
        expected = [(draws[0], once), (draws[0], once), (draws[2], once * 1.01), (draws[2], once * 1.01)]
        for number, (found, wanted) in enumerate(zip(seen, expected, strict=True)):
            assert_same(list(found), list(wanted), f"state after batch {number}")


@pytest.mark.parametrize("deferred", [False, True])
def test_a_restart_without_learning_still_forgets(deferred: bool) -> None:
    with verdict_deferred() if deferred else _nothing():
        adapted = make(Moody(restart=True), FACTORY)
        adapted(BATCH(0))
        adapted(BATCH(1))
        adapted.settle()
        assert_same(adapted.state.weights["norm1.weight"], FACTORY().norm1.weight, "a forgotten weight")
        assert adapted.state.batches == 2 and adapted.last.restarted and not adapted.last.updated


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...


def test_batch_norm_over_rows() -> None:
    """Rows of a table may be constant; that is no black frame."""
    adapted = acclimate.adapt(built(Mlp), "tent")
    x = torch.rand(8, 6, generator=torch.Generator().manual_seed(0))
    x[2] = 0.5
    assert adapted(x).shape == (8, CLASSES) and adapted.last.held == 0


def test_images_are_those_of_the_stream() -> None:
    """The stream of these tests is itself fit to learn from."""
    assert float(images(0).min()) >= 0 and float(images(0).max()) <= 1 and images(0).shape == (8, 3, 8, 8)
