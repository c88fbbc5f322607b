"""What is measured is the most that a step can take: no step afterwards takes more, whatever it selects."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.budget import Budget
from acclimate.core.method import Method
from acclimate.methods.note import NOTE
from acclimate.methods.rotta import RoTTA

from .test_budget_plans import MODELS, images

METHODS: dict[str, str | Method] = {
    name: name for name in ("tent", "eta", "sar", "deyo", "roid", "shot", "dss", "palm")
}
METHODS |= {"note": NOTE(capacity=24, update_every=16), "rotta": RoTTA(capacity=20, update_every=12)}
BANKS = ("note", "rotta")


def sharp(model: str) -> nn.Module:
    """A model with sure and doubtful answers, so that methods that select have something to select."""
    net = MODELS[model]()
    with torch.no_grad():
        net.head.weight.mul_(20.0)
    return net.eval()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_no_step_takes_more_than_was_measured(method: str, model: str) -> None:
    if model == "vit" and method in (*BANKS, "palm"):
        pytest.skip("needs batch norm, or convolutions")
    adapted = acclimate.adapt(sharp(model), METHODS[method], memory="exact")
    measured = adapted.memory(images(0, 8)).saved
    peaks = []
    for number in range(12):
        adapted(images(number, 8))
        peaks.append(adapted._keeper.held.peak)
    assert max(peaks) <= measured
    if method in ("tent", "note"):  # RoTTA's bank is full only when every class has come
        assert max(peaks) == measured, "measured more than any step takes"
    if method in BANKS:
        assert min(peaks) == 0, "no batch without an update, so nothing was shown"
        assert adapted.memory(images(1, 2)).saved == measured


@pytest.mark.parametrize("method", BANKS)
def test_a_budget_planned_on_a_batch_without_an_update_holds_at_the_update(method: str) -> None:
    def start(size: int) -> acclimate.Adapted:
        return acclimate.adapt(sharp("conv"), METHODS[method], budget=Budget(memory=size))

    stock = acclimate.adapt(sharp("conv"), METHODS[method]).memory(images(0, 4)).total
    adapted = start(int(stock * 0.6))
    for number in range(12):
        adapted(images(number, 4))
        taken = 2 * sum(adapted.state.table.bytes().values()) + adapted._keeper.held.peak
        assert taken <= stock * 0.6
    assert adapted.plan.chosen.words != "as PyTorch does"


def test_measuring_leaves_the_bank_as_it_was() -> None:
    one, other = (acclimate.adapt(sharp("conv"), METHODS["rotta"]) for _ in range(2))
    for number in range(5):
        one.memory(images(99, 7))
        torch.testing.assert_close(one(images(number, 8)), other(images(number, 8)), rtol=0, atol=0)
    for name, slot in one.state.table.slots.items():
        assert torch.equal(slot.tensor, other.state.table.slots[name].tensor), name
