"""A budget holds on every later call: plans are made anew where they must be, and not where they need not."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.core.budget import Budget

from .keeping import seeded
from .test_budget_plans import METHODS, MODELS, images, measured


def test_larger_batches_are_planned_for_again() -> None:
    stock = acclimate.adapt(MODELS["conv"](), "tent").memory(images()).total
    adapted = acclimate.adapt(MODELS["conv"](), "tent", budget=Budget(memory=int(stock * 1.05)))
    adapted(images(0))
    assert adapted.method.memory.name == "stock" and adapted.plan.samples == 32
    weights = {name: weight.clone() for name, weight in adapted.state.weights.items()}
    adapted(images(1, 16))
    assert adapted.plan.samples == 32
    adapted(images(2, 64))
    assert adapted.plan.samples == 64 and adapted.method.memory.name == "exact"
    assert adapted.plan.tried[0].words == "as PyTorch does"
    assert adapted.state.batches == 3 and any(not torch.equal(weights[n], w) for n, w in adapted.state.weights.items())
    with pytest.raises(ValueError, match="nothing fits"):
        adapted(images(3, 4096))
    assert adapted.method.memory.name == "exact" and adapted.state.batches == 3
    adapted(images(4, 64))
    assert adapted.last.updated


class Pixels(nn.Module):
    """Takes images of any size."""

    def __init__(self) -> None:
        super().__init__()
        parts = [(nn.Conv2d(a, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for a in (3, 8)]
        self.body = nn.Sequential(*(layer for part in parts for layer in part))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def test_larger_images_are_planned_for_again() -> None:
    sizes = {side: torch.rand(2, 3, side, side) for side in (16, 64)}
    small, large = (
        acclimate.adapt(seeded(Pixels), "tent", memory=policy).memory(sizes[side]).total
        for policy, side in (("stock", 16), ("exact", 64))
    )
    budget = Budget(memory=int(large * 1.05))
    assert small < budget.bytes
    adapted = acclimate.adapt(seeded(Pixels), "tent", budget=budget)
    adapted(sizes[16])
    assert adapted.method.memory.name == "stock"
    adapted(sizes[64])
    assert adapted.method.memory.name == "exact" and measured(adapted) <= budget.bytes
    plan = adapted.plan
    adapted(sizes[16])
    adapted(torch.rand(2, 3, 32, 32))
    assert adapted.plan is plan, "nothing about these is larger"
    with pytest.raises(ValueError, match="nothing fits"):
        adapted(torch.rand(2, 3, 256, 256))


def test_calls_that_leave_autocast_are_planned_for_again() -> None:
    adapted = acclimate.adapt(MODELS["vit"](), "tent", budget=Budget(memory="1 GB"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        adapted(images())
    narrow = adapted.plan
    adapted(images(1))
    assert adapted.plan is not narrow
    wide = adapted.plan
    with torch.autocast("cpu", dtype=torch.bfloat16):
        adapted(images(2))
    assert adapted.plan is wide


def full(budget: Budget | None = None, memory: str = "surgeon") -> acclimate.Adapted:
    return acclimate.adapt(MODELS["conv"](), "surgeon:plain", memory=memory, budget=budget)


def test_a_budget_with_room_changes_nothing() -> None:
    free, roomy = full(), full(Budget(memory="1 GB"))
    for number in range(5):
        assert torch.equal(free(images(number)), roomy(images(number)))


@pytest.mark.parametrize("part", [1.02, 1.3, 100.0])
def test_steps_that_want_more_than_the_first_keep_to_the_budget(part: float) -> None:
    """SURGEON's shares change from batch to batch: what they may take is the room that the budget leaves."""
    budget = Budget(memory=int(full().memory(images(0)).total * part))
    adapted = full(budget)
    for number in range(8):
        adapted(images(number) * (0.2 + 0.1 * number))
        assert adapted.method.memory.name == "surgeon" and measured(adapted) <= budget.bytes


@pytest.mark.parametrize("part", [0.9, 1.05, 50.0])
def test_an_adaptation_with_a_budget_resumes_bit_for_bit_under_it(part: float, tmp_path: Path) -> None:
    budget = Budget(memory=int(full().memory(images(0)).total * part))
    adapted = full(budget)
    for number in range(2):
        adapted(images(number))
    adapted.save(tmp_path / "state")
    for again in (budget, None, Budget(memory="1 GB")):
        twin, resumed = copy.deepcopy(adapted), acclimate.load(MODELS["conv"](), tmp_path / "state", budget=again)
        for number in range(2, 6):
            assert torch.equal(resumed(images(number)), twin(images(number)))
        assert resumed.method.memory == adapted.method.memory


def test_reset_restore_and_measuring_leave_the_plan_as_it_was() -> None:
    budget = Budget(memory=int(acclimate.adapt(MODELS["conv"](), "tent").memory(images()).total * 1.05))
    adapted = acclimate.adapt(MODELS["conv"](), "tent", budget=budget)
    first = [adapted(images(number)) for number in range(2)]
    adapted.snapshot("small")
    later = [adapted(images(number)) for number in range(2, 4)]
    plan = adapted.plan
    assert adapted.memory(images(9, 64)).total <= budget.bytes
    adapted.memory_report(images(9, 64))
    assert adapted.plan is plan and adapted.method.memory.name == "stock"
    adapted(images(5, 64))
    assert adapted.plan is not plan and adapted.method.memory.name == "exact"
    adapted.restore("small")
    assert adapted.plan is plan and adapted.method.memory.name == "stock"
    assert all(torch.equal(adapted(images(number)), later[number - 2]) for number in range(2, 4))
    adapted(images(5, 64))
    adapted.reset()
    assert adapted.plan is None and adapted.method.memory.name == "stock"
    assert all(torch.equal(adapted(images(number)), first[number]) for number in range(2))


def test_blocks_run_again_before_bits_are_lost() -> None:
    stock = acclimate.adapt(MODELS["vit"](), "tent").memory(images()).total
    again = acclimate.adapt(MODELS["vit"](), "tent", memory="checkpointed:exact").memory(images()).total
    lossy = acclimate.adapt(MODELS["vit"](), "tent", memory="quantized").memory(images()).total
    assert lossy < again < stock
    adapted = acclimate.adapt(MODELS["vit"](), "tent", budget=Budget(memory=int(again * 1.01)))
    plain = acclimate.adapt(MODELS["vit"](), "tent")
    for number in range(3):
        torch.testing.assert_close(adapted(images(number)), plain(images(number)), rtol=1e-4, atol=1e-5)
    assert adapted.method.memory.name == "checkpointed"


def test_a_method_that_no_file_holds_is_passed_again(tmp_path: Path) -> None:
    """With a function in its settings: the plan's policy is the file's, what else differs is refused."""
    stock = acclimate.adapt(MODELS["conv"](), METHODS["full"]).memory(images()).total
    adapted = acclimate.adapt(MODELS["conv"](), METHODS["full"], budget=Budget(memory=int(stock * 0.3)))
    for number in range(2):
        adapted(images(number))
    assert adapted.method.memory.name != "stock"
    adapted.save(tmp_path / "state")
    resumed = acclimate.load(MODELS["conv"](), tmp_path / "state", method=METHODS["full"])
    assert resumed.method.memory == adapted.method.memory
    for number in range(2, 4):
        assert torch.equal(resumed(images(number)), adapted(images(number)))
    with pytest.raises(ValueError, match="Pass the same settings"):
        acclimate.load(MODELS["conv"](), tmp_path / "state", method=replace(METHODS["full"], memory="exact"))
