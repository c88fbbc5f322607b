"""Budgets: sizes, plans, refusals, and steps that stay within what was allowed."""

from __future__ import annotations

import copy
import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.anatomy import everything
from acclimate.core.budget import Budget, parse_size
from acclimate.core.memory import policies
from acclimate.memory.exact import ExactSavings
from acclimate.memory.surgeon import SurgeonSavings
from acclimate.methods.tent import Tent
from acclimate.models.transformer import VisionTransformer

from .keeping import seeded


class Conv(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        widths = [3, width, width, 2 * width]
        pairs = list(itertools.pairwise(widths))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.head = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).relu()
        return self.head(nn.functional.max_pool2d(x, 2).mean((2, 3)))


MODELS = {
    "conv": lambda: seeded(Conv),
    "vit": lambda: seeded(lambda: VisionTransformer(5, 16, patch=4, width=48, depth=2, heads=2)),
}
METHODS = {
    "tent": Tent(),
    "full": Tent(select=everything, learning_rate=1e-4),
}


def images(number: int = 0, count: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    x = torch.rand(count, 3, 16, 16, generator=generator) * torch.rand(count, 1, 1, 1, generator=generator)
    return x.clamp(0, 1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("64 MB", 64_000_000), ("64MiB", 67_108_864), ("1.5 gb", 1_500_000_000), ("2 k", 2000), ("7", 7), (12, 12),
        (" 3 KiB ", 3072), ("0.5 kB", 500), ("1 B", 1), ("1 TB", 10**12), ("0.5TiB", 549_755_813_888),
    ],
)  # fmt: skip
def test_sizes(size: str | int, expected: int) -> None:
    assert parse_size(size) == expected and Budget(memory=size).bytes == expected


@pytest.mark.parametrize("size", ["", "MB", "-3 MB", "3 XB", "0", 0, -5, True, 2.5, None, "0.1 B", "1e6", "3 MB MB"])
def test_what_is_no_size_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"found .* for a size"):
        Budget(memory=size)


def test_what_is_no_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="expected for instance"):
        acclimate.adapt(MODELS["conv"](), "tent", budget="64 MB")


@pytest.mark.parametrize("policy", ["stock", "exact", "quantized", "quantized:4-bit", "surgeon"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [12, 64])
def test_predictions_hold_within_a_twentieth(model: str, method: str, policy: str, count: int) -> None:
    adapted = acclimate.adapt(MODELS[model](), METHODS[method], memory=policy)
    found = adapted.memory(images(0, count))
    assert abs(found.predicted - found.saved) <= 0.05 * found.saved, f"{found.predicted}, measured {found.saved}"
    assert found.saved <= found.stock and (policy != "stock" or found.saved == found.stock)
    assert found.total == sum(found.state.values()) + found.rollback + found.saved


def measured(adapted: acclimate.Adapted) -> int:
    """What the step that was just made took: state and its copy, and what autograd held at the peak."""
    state = sum(adapted.state.table.bytes().values())
    return 2 * state + adapted._keeper.held.peak


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_steps_stay_within_the_budget(method: str, model: str) -> None:
    """From a lenient budget to the least: the first of the ladder that fits is chosen, and every step keeps to it."""
    stock = acclimate.adapt(MODELS[model](), METHODS[method]).memory(images()).total
    chosen = []
    for part in (1.1, 0.8, 0.5, 0.3, 0.2, 0.1):
        budget = Budget(memory=int(stock * part))
        adapted = acclimate.adapt(MODELS[model](), METHODS[method], budget=budget)
        try:
            adapted(images())
        except ValueError as error:
            least = float(re.search(r"the least looked at is ([\d.]+) MB", str(error))[1])
            assert least * 1e6 > budget.bytes
            assert adapted.plan is None and adapted.state.batches == 0
            enough = acclimate.adapt(MODELS[model](), METHODS[method], budget=Budget(memory=f"{least} MB"))
            enough(images())
            assert enough.last.updated and enough.memory(images()).total <= least * 1e6
            break
        plan = adapted.plan
        assert plan.chosen.total <= budget.bytes and plan.chosen.policy == adapted.method.memory
        assert all(choice.total > budget.bytes for choice in plan.tried[:-1])
        assert plan.chosen.words in str(plan) and "->" in str(plan)
        chosen.append(plan.chosen.words)
        for number in range(6):
            adapted(images(number))
            if adapted.method.memory.name != "stock":
                assert measured(adapted) <= budget.bytes
            assert adapted.plan is plan
        assert adapted.memory(images(9)).total <= budget.bytes
    assert len(set(chosen)) >= 3, chosen
    assert chosen[0] == "as PyTorch does"


def test_a_plan_leaves_no_trace_of_what_it_tried() -> None:
    """A policy with state of its own was asked for and did not fit: the state of one that fits is all there is."""
    asked = SurgeonSavings(probe_keep=1.0, norms=32, curves=32, probe=32, values="float32")
    first = acclimate.adapt(MODELS["conv"](), METHODS["full"], memory=asked).memory(images()).total
    quantized = acclimate.adapt(MODELS["conv"](), METHODS["full"], memory="quantized").memory(images()).total
    assert quantized < first, "otherwise this tests nothing"
    budget = Budget(memory=(quantized + first) // 2)
    adapted = acclimate.adapt(MODELS["conv"](), METHODS["full"], memory=asked, budget=budget)
    adapted(images())
    assert adapted.plan.tried[0].words == "as asked for: surgeon"
    assert adapted.method.memory.name != "surgeon"
    assert not [name for name in adapted.state.table.slots if name.startswith("memory.")]
    assert not [name for name in adapted.state.table.generators if name.startswith("memory.")]
    twin = acclimate.adapt(MODELS["conv"](), METHODS["full"], memory=adapted.method.memory)
    twin(images())
    assert torch.equal(adapted(images(1)), twin(images(1)))


@pytest.mark.parametrize("method", ["bn", "source"])
@pytest.mark.parametrize("policy", ["stock", "exact", "quantized:4-bit", "surgeon"])
def test_methods_that_learn_nothing(method: str, policy: str) -> None:
    plain = acclimate.adapt(MODELS["conv"](), method)
    adapted = acclimate.adapt(MODELS["conv"](), method, memory=policy, budget=Budget(memory="1 MB"))
    for number in range(2):
        assert torch.equal(adapted(images(number)), plain(images(number)))
    found = adapted.memory(images())
    assert found.saved == found.stock == found.predicted == 0
    assert adapted.memory_report(images()).lines == ()


@pytest.mark.parametrize("policy", ["exact", "quantized:4-bit", "surgeon"])
def test_a_saved_adaptation_resumes_bit_for_bit(policy: str, tmp_path: Path) -> None:
    adapted = acclimate.adapt(MODELS["conv"](), "tent", memory=policy)
    for number in range(2):
        adapted(images(number))
    adapted.save(tmp_path / "state")
    resumed = acclimate.load(MODELS["conv"](), tmp_path / "state")
    assert resumed.method == adapted.method and resumed.method.memory == policies.build(policy)
    for number in range(2, 4):
        assert torch.equal(resumed(images(number)), adapted(images(number)))


def test_a_planned_adaptation_resumes_bit_for_bit(tmp_path: Path) -> None:
    stock = acclimate.adapt(MODELS["conv"](), METHODS["full"]).memory(images()).total
    method = Tent(learning_rate=1e-4)
    adapted = acclimate.adapt(MODELS["conv"](), method, budget=Budget(memory=int(stock * 0.2)))
    for number in range(2):
        adapted(images(number))
    assert adapted.method.memory.name != "stock"
    adapted.save(tmp_path / "state")
    resumed = acclimate.load(MODELS["conv"](), tmp_path / "state")
    twin = copy.deepcopy(adapted)
    for number in range(2, 4):
        expected = adapted(images(number))
        assert torch.equal(resumed(images(number)), expected) and torch.equal(twin(images(number)), expected)


@pytest.mark.parametrize(
    "policy",
    ["stock", "exact", "quantized:4-bit", "surgeon", ExactSavings(depth=0.5), SurgeonSavings(probe=3, limit=100.5)],
)
def test_settings_make_a_round_trip(policy: object) -> None:
    built = policies.build(policy)
    assert policies.build(built.config()) == built
    method = Tent(memory=built)
    config = method.config()
    assert ("memory" in config) == (built.name != "stock")
    assert acclimate.core.method.methods.build(config) == method


# -- depth ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adafactor", "rprop"])
def test_below_the_depth_nothing_moves(optimizer: str, tmp_path: Path) -> None:
    method = Tent(select=everything, learning_rate=1e-2, optimizer=optimizer, memory=ExactSavings(depth=0.4))
    adapted = acclimate.adapt(MODELS["conv"](), method)
    names = list(adapted.state.weights)
    still = names[: len(names) - round(0.4 * len(names))]
    before = {name: weight.clone() for name, weight in adapted.state.weights.items()}
    for number in range(3):
        adapted(images(number))
    for name, weight in adapted.state.weights.items():
        assert weight.requires_grad == (name not in still)
        assert torch.equal(weight, before[name]) == (name in still), name
    adapted.save(tmp_path / "state")
    resumed = acclimate.load(MODELS["conv"](), tmp_path / "state", method=method)
    assert [w.requires_grad for w in resumed.state.weights.values()] == [name not in still for name in names]
    assert torch.equal(resumed(images(4)), adapted(images(4)))


def test_depth_saves_what_lies_below() -> None:
    full = acclimate.adapt(MODELS["conv"](), "tent", memory="exact").memory(images())
    top = acclimate.adapt(MODELS["conv"](), "tent", memory=ExactSavings(depth=0.3)).memory(images())
    assert top.stock < 0.8 * full.stock and top.saved < 0.8 * full.saved


def test_plans_that_change_leave_the_right_weights_learning() -> None:
    adapted = acclimate.adapt(MODELS["conv"](), "tent", memory=ExactSavings(depth=0.3), budget=Budget(memory="1 GB"))
    learning = [weight.requires_grad for weight in adapted.state.weights.values()]
    adapted(images())
    assert [weight.requires_grad for weight in adapted.state.weights.values()] == learning
    least = acclimate.adapt(MODELS["conv"](), "tent", budget=Budget(memory="1 GB"))
    least(images())
    assert all(weight.requires_grad for weight in least.state.weights.values())


class Backwards(nn.Module):
    """Declares its layers the other way round than it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 5)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(8 if n < 3 else 3, 8, 3, padding=1, bias=False) for n in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(reversed(self.convs), reversed(self.norms), strict=True):
            x = norm(conv(x)).relu()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("memory", [ExactSavings(depth=0.25), "stock"])
def test_depth_counts_from_the_end_of_the_forward(memory: str | ExactSavings) -> None:
    """The last two norms that run learn, by `depth` or in a plan, wherever the model declares them."""
    start = {name: weight.clone() for name, weight in seeded(Backwards).named_parameters()}
    budget = None
    if memory == "stock":
        full = acclimate.adapt(seeded(Backwards), "tent", memory="quantized:4-bit").memory(images())
        budget = Budget(memory=int(full.total * 0.55))
    adapted = acclimate.adapt(seeded(Backwards), "tent", memory=memory, budget=budget)
    for number in range(3):
        adapted(images(number))
    moved = [name for name, weight in adapted.module.named_parameters() if not torch.equal(weight, start[name])]
    norms = sorted({int(name.split(".")[1]) for name in moved})
    assert norms and norms == list(range(len(norms))) and len(norms) < 4, "norm 0 runs last"
    assert adapted.state.order[-2:] == ("head.weight", "head.bias") and "norms.3.weight" in adapted.state.order[:3]
    if budget is None:
        assert norms == [0]
        kept = {line.layer for line in adapted.memory_report(images()).lines if line.operation == "batch_norm"}
        assert kept == {"norms.0.weight"}
