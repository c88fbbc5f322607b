"""What auto tells of itself is what its layers did: the plan in words, `last.values`, shares of the batch by layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.budget import Budget
from acclimate.methods.auto import Auto
from acclimate.normalization.shallow import ShallowStatistics
from conformance.models import MODELS, images
from conformance.tools import answers
from methods.told import Told, balanced, one_class
from normalization.layered import alike

LIMIT = 0.2


def adapted(**settings: object) -> acclimate.Adapted:
    return acclimate.adapt(Told(), Auto(**{"learner": "bn", "limit": LIMIT, "rows": 12.0} | settings))


def test_the_plan_in_each_state():
    """Both sentences, batch by batch; the numbers are those that the record has."""
    model = adapted()
    fresh = model.plan
    told = {
        "hold": ("the whole batch, whose domain is one", "the source", "It will learn from a batch of 8 rows or more"),
        "learn": ("the whole batch, whose domain is one", "the batch", "It learns: labels do not cluster"),
        "sorted": ("the whole batch, whose domain is one", "the batch", "It will hold: labels cluster"),
        "held": ("the whole batch, whose domain is one", "the source", "It holds: labels cluster"),
        "few": ("the whole batch: nothing told domains apart", "the source", "It will learn from a batch of 8 rows or"),
        "mixed": ("groups of alike samples, since domains mix", "the batch", "It learns: labels do not cluster"),
    }
    assert "nothing told domains apart" in fresh and "those of the source. It holds: nothing has told yet" in fresh
    steps = [("hold", balanced(0)), ("learn", balanced(1)), ("sorted", one_class(2)), ("held", one_class(3))]
    steps += [("held", balanced(4)), ("hold", balanced(5)), ("learn", balanced(6)), ("few", balanced(7, 5))]
    steps += [("mixed", balanced(8, mixed=True))]
    for state, x in steps:
        model(x)
        middle, deep, intent = told[state]
        values = model.last.values
        assert model.plan.startswith(f"Layers of middle depth take the statistics of {middle}"), state
        assert f"; deep ones those of {deep}. {intent}" in model.plan, state
        assert model.plan.endswith(f"(clustering {values['clustering']:.3f}, limit 0.2).")
        assert ("spread" in model.plan) == (values["spread"] > 0) == (state != "few")
        assert f"spread {values['spread']:.2f}, border 0.54" in model.plan or state == "few"
    model.reset()
    assert model.plan == fresh


def test_a_first_batch_too_small_tells_nothing():
    model = adapted()
    model(one_class(0, 7))
    assert "It holds: nothing has told yet whether labels cluster" in model.plan
    assert model.state.batches == 1


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            ShallowStatistics(groups="always", follow=True),
            "take the statistics of groups of alike samples, as set; deep",
        ),
        (
            ShallowStatistics(follow=True),
            "Shallow layers take the statistics of the whole batch, deep ones those of the b",
        ),
        (
            ShallowStatistics(groups="auto"),
            "whose domain is one (spread 0.28, border 0.54); deep ones those of the source.",
        ),
        ("find", "Its statistics are those of another normalisation. It learns"),
    ],
)
def test_the_plan_under_another_normalisation(found, words):
    """While it learns: only what follows takes the batch's statistics in deep layers."""
    model = adapted(normalization=found)
    answers(model, [balanced(0), balanced(1)])
    assert words in model.plan
    assert ("spread" in model.last.values) == ("spread" in model.plan)


def test_a_budget_has_the_say_in_the_plan():
    factory = MODELS["batch_norm"][0]
    model = acclimate.adapt(factory(), Auto(limit=2.0), budget=Budget(memory="64 MB"))
    assert "nothing has told yet" in model.plan
    model(images(0))
    assert not isinstance(model.plan, str)
    assert acclimate.adapt(factory(), "tent").plan is None


def took(model: acclimate.Adapted, x: torch.Tensor) -> dict[str, float]:
    """By hooks: from the slope of each sample's output on its input, the share of the batch's variance in it.

    Where that is not the same for all samples, of the variance of their groups.
    """
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(layer: nn.Module, given: tuple[torch.Tensor], y: torch.Tensor) -> None:
        seen[layer.name] = given[0].detach().clone(), y.detach().clone()  # the answer is the last forward

    hooks = [layer.register_forward_hook(keep) for layer in model.state.layers]
    model(x)
    for hook in hooks:
        hook.remove()
    found = {}
    for layer in model.state.layers:
        z, y = seen[layer.name]
        one, other = z.flatten(2), y.flatten(2)
        slope = other.std(2) / one.std(2) / layer.weight.detach().abs()
        variance, source = slope**-2 - layer.eps, layer.source_statistics()[1]
        whole = one.transpose(0, 1).flatten(1).var(1, correction=0).expand_as(variance).clone()
        if not torch.allclose(variance, variance[:1].expand_as(variance), rtol=1e-6):
            for rows in alike(one.mean(2)):
                whole[rows] = one[rows].transpose(0, 1).flatten(1).var(1, correction=0)
        shares = (variance - source) / (whole - source)
        found[layer.name] = float(shares.median())
        assert float((shares - found[layer.name]).abs().median()) < 1e-5
    return found


def test_the_share_of_the_batch_is_what_layers_took():
    model, seen = adapted(), set[tuple[float, ...]]()
    for x in (
        balanced(0),
        balanced(1),
        balanced(2, mixed=True),
        one_class(3),
        balanced(4, 5),
        balanced(5, 5, mixed=True),
    ):
        found = took(model, x)
        assert model.last.detail("batch_share") == pytest.approx(found, abs=1e-4)
        seen.add(tuple(round(share, 2) for share in model.last.detail("batch_share").values()))
    whole, grouped, few = round(20 / 28, 2), 0.4, round(5 / 13, 2)
    deep, none = [whole] * 5, [0.0] * 5
    assert seen == {
        (*deep, *none),
        (*deep, *deep),
        (*deep[:3], grouped, grouped, *deep),
        (*[few] * 5, *none),
    }


def test_a_row_without_positions_takes_nothing_of_itself():
    """`BatchNorm1d` over a single row: the source's statistics, and the record says so."""
    factory, batch = MODELS["mlp"]
    model = acclimate.adapt(factory(), "auto")
    model(batch(0)[:1])
    assert list(model.last.detail("batch_share").values()) == [0.0]
    model(batch(0))
    assert list(model.last.detail("batch_share").values()) == [0.5]
