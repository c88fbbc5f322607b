"""Any optimiser of torch: its state is seen, copied, restored, exported and adopted, bit for bit."""

from __future__ import annotations

import copy
import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from acclimate.core.optimizers import TrackedOptimizer, build_optimizer, moments
from acclimate.core.table import Table
from conformance.tools import assert_same, bits

SKIPPED = {"Optimizer", "LBFGS", "SparseAdam"}
"""The base class; one that needs a closure; one for sparse gradients."""

FACTORIES: dict[str, Callable[..., Optimizer]] = {
    **{
        name: cls
        for name, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, Optimizer) and name not in SKIPPED
    },
    "SGD momentum": functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "Adam amsgrad": functools.partial(torch.optim.Adam, amsgrad=True),
    "Adam capturable": functools.partial(torch.optim.Adam, foreach=True),
    "LARS": lambda parameters, lr: build_optimizer("lars", parameters, 10 * lr),
    "Prodigy": lambda parameters, lr: build_optimizer("prodigy", parameters, 1.0),
    "Prodigy bold": functools.partial(pytorch_optimizer.Prodigy, d_coef=30.0, d0=1e-3, weight_decay=0.01),
    "RMSprop centred": functools.partial(torch.optim.RMSprop, centered=True, momentum=0.5),
}


def _weights() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        "block.weight": nn.Parameter(torch.randn(4, 3, generator=generator)),
        "other.weight": nn.Parameter(torch.randn(2, 5, generator=generator)),
    }


def _gradients(number: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + number)
    return {name: torch.randn(weight.shape, generator=generator) for name, weight in _weights().items()}


def _table(factory: Callable[..., Optimizer], **options: Any) -> Table:
    table, weights = Table(), _weights()
    for name, weight in weights.items():
        table.declare(name, weight, initial=weight.detach().clone(), kind="weights")
    table.declare_optimizer("optimizer", build_optimizer(factory, weights.values(), 0.01, **options), weights)
    table.counters["batches"] = 0
    return table


def _step(table: Table, *numbers: int) -> list[Any]:
    for number in numbers:
        table.optimizers["optimizer"].step(_gradients(number))
    return _everything(table)


def _everything(table: Table) -> list[Any]:
    """Weights and the optimiser's own state dict, which knows nothing of tables."""
    state = table.optimizers["optimizer"].optimizer.state_dict()
    found: list[Any] = [bits(slot.tensor) for slot in table.slots.values()]
    for values in state["state"].values():
        found += [(key, bits(v) if isinstance(v, Tensor) else v) for key, v in sorted(values.items()) if v is not None]
    for group in state["param_groups"]:
        found += [(k, bits(v) if isinstance(v, Tensor) else v) for k, v in sorted(group.items())]
    return found


@pytest.mark.parametrize("name", FACTORIES)
def test_snapshot_and_restore(name: str) -> None:
    table = _table(FACTORIES[name])
    fresh = table.snapshot()
    nothing = _everything(table)
    after = _step(table, 0, 1, 2)
    kept = table.snapshot()
    onward = _step(table, 3, 4)
    assert onward != after
    table.restore(kept)
    assert _everything(table) == after
    assert _step(table, 3, 4) == onward
    table.restore(fresh)
    assert _everything(table) == nothing
    assert _step(table, 0, 1, 2) == after
    table.restore(kept)
    assert _step(table, 3, 4) == onward, "a snapshot can be restored again"


@pytest.mark.parametrize("name", FACTORIES)
def test_snapshot_into_an_earlier_one(name: str) -> None:
    table = _table(FACTORIES[name])
    shadow = table.snapshot()
    after = _step(table, 0, 1)
    assert table.snapshot(shadow) is shadow
    _step(table, 2)
    table.restore(shadow)
    assert _everything(table) == after
    table.reset()
    shadow = table.snapshot(shadow)
    _step(table, 5)
    table.restore(shadow)
    assert _everything(table) == _everything(_table(FACTORIES[name])), "state created since is gone"


@pytest.mark.parametrize("name", FACTORIES)
def test_reset(name: str) -> None:
    table = _table(FACTORIES[name])
    first = _step(table, 0, 1, 2)
    table.reset()
    assert _everything(table) == _everything(_table(FACTORIES[name]))
    assert _step(table, 0, 1, 2) == first


@pytest.mark.parametrize("name", FACTORIES)
def test_export_and_adopt(name: str) -> None:
    """Through JSON for the numbers, as in a state file, into a freshly built table."""
    table = _table(FACTORIES[name])
    after = _step(table, 0, 1, 2)
    tensors, scalars = table.export()
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    other = _table(FACTORIES[name])
    other.adopt(tensors, json.loads(json.dumps(scalars)))
    assert _everything(other) == after
    assert _step(other, 3, 4) == _step(table, 3, 4)
    assert not {t.data_ptr() for t in tensors.values()} & {slot.tensor.data_ptr() for _, slot in other.entries()}
    other.reset()
    assert _step(other, 0, 1, 2) == after


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RAdam", "NAdam", "Rprop", "Adadelta"])
def test_a_learning_rate_held_in_a_tensor(name: str) -> None:
    def factory(parameters: Any, lr: float) -> Optimizer:
        return getattr(torch.optim, name)(parameters, lr=torch.tensor(lr), foreach=False)

    try:
        table = _table(factory)
    except ValueError:
        pytest.skip("this one takes no tensor")
    after = _step(table, 0)
    kept = table.snapshot()
    table.optimizers["optimizer"].optimizer.param_groups[0]["lr"].mul_(0.5)
    assert _step(table, 1) != after
    table.restore(kept)
    assert _everything(table) == after
    table.optimizers["optimizer"].optimizer.param_groups[0]["lr"].mul_(0.5)
    table.reset()
    assert _step(table, 0) == after


def test_gradients_are_handed_over_and_cleared() -> None:
    table = _table(torch.optim.SGD)
    _step(table, 0)
    assert all(slot.tensor.grad is None for slot in table.slots.values())
    only = {"block.weight": _gradients(1)["block.weight"]}
    before = table.slots["other.weight"].tensor.detach().clone()
    table.optimizers["optimizer"].step(only)
    assert_same(table.slots["other.weight"].tensor, before, "a weight without gradient")


@pytest.mark.parametrize("name", FACTORIES)
def test_gradients_are_not_written_on(name: str) -> None:
    """Two weights may share one gradient, as those of a sum do, and a caller may use it again."""
    weights = {key: nn.Parameter(torch.ones(2, 3)) for key in ("a", "b")}
    tracked = TrackedOptimizer(build_optimizer(FACTORIES[name], weights.values(), 0.01), weights)
    gradient = torch.arange(6.0).reshape(2, 3)
    for _ in range(2):
        tracked.step(dict.fromkeys(weights, gradient))
    assert_same(gradient, torch.arange(6.0).reshape(2, 3), "the gradient handed over")
    assert_same(weights["a"], weights["b"], "two weights of equal value and gradient")
    assert weights["a"].ne(1).any()


def test_the_distance_that_prodigy_finds_is_taken_back_and_along() -> None:
    """With steady gradients d grows: a number that is changed in the group, beside entries that only a step adds."""
    table = _table(FACTORIES["Prodigy bold"])
    group, built = table.optimizers["optimizer"].optimizer.param_groups[0], table.snapshot()
    keys = set(group)

    def steady(count: int, where: Table = table) -> list[Any]:
        for _ in range(count):
            where.optimizers["optimizer"].step(_gradients(0))
        return _everything(where)

    after, kept, found = steady(4), table.snapshot(), group["d"]
    onward, grown = steady(3), group["d"]
    assert 1e-3 < found < grown and set(group) > keys
    table.restore(kept)
    assert group["d"] == found and steady(3) == onward
    table.restore(built)
    assert set(group) == keys and group["d"] == 1e-3 and steady(4) == after
    other, (tensors, scalars) = _table(FACTORIES["Prodigy bold"]), table.export()
    other.adopt({key: tensor.clone() for key, tensor in tensors.items()}, json.loads(json.dumps(scalars)))
    assert steady(3, other) == onward
    other.reset()
    assert set(other.optimizers["optimizer"].optimizer.param_groups[0]) == keys and steady(4, other) == after


@pytest.mark.parametrize("spoil", ["d", "d_hat", "stranger", "d0"])
def test_garbled_numbers_of_an_optimiser_are_refused(spoil: str) -> None:
    table = _table(FACTORIES["Prodigy"])
    _step(table, 0, 1)
    tensors, scalars = table.export()
    scalars = json.loads(json.dumps(scalars))
    group = scalars["optimizers"]["optimizer"]["groups"][0]
    if spoil == "d0":
        del group["d0"]
    else:
        group[spoil] = "much"
    other = _table(FACTORIES["Prodigy"])
    fresh = _everything(other)
    with pytest.raises(ValueError, match="settings are garbled"):
        other.adopt(tensors, scalars)
    assert _everything(other) == fresh


def test_a_step_that_raises_leaves_no_gradients() -> None:
    class Failing(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            raise KeyboardInterrupt

    weights = _weights()
    tracked = TrackedOptimizer(Failing(weights.values(), lr=0.1), weights)
    with pytest.raises(KeyboardInterrupt):
        tracked.step(_gradients(0))
    assert all(weight.grad is None for weight in weights.values())


def test_deep_copied_options_are_not_shared() -> None:
    """Restoring and resetting give groups lists and tensors of their own."""
    table = _table(torch.optim.Adam)
    kept = copy.deepcopy(table.optimizers["optimizer"].optimizer.state_dict()["param_groups"])
    table.snapshot()
    table.reset()
    assert table.optimizers["optimizer"].optimizer.state_dict()["param_groups"] == kept
    assert isinstance(table.optimizers["optimizer"].optimizer.param_groups[0]["betas"], tuple)


@pytest.mark.parametrize("name", ["adam", "Adam", "ADAMW", "sgd", "rprop"])
def test_names_in_any_case(name: str) -> None:
    built = build_optimizer(name, _weights().values(), 0.1)
    assert type(built).__name__.lower() == name.lower() and built.param_groups[0]["lr"] == 0.1


def test_a_bare_sgd_has_the_fields_momentum() -> None:
    group = build_optimizer("sgd", _weights().values(), 0.1).param_groups[0]
    assert group["momentum"] == 0.9 and group["nesterov"]
    assert build_optimizer(torch.optim.SGD, _weights().values(), 0.1).param_groups[0]["momentum"] == 0


def test_names_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """LARS and Prodigy by name; without their package, a hint that says what to install."""
    assert type(build_optimizer("LARS", _weights().values(), 0.1)) is pytorch_optimizer.LARS
    assert type(build_optimizer("prodigy", _weights().values(), 1.0)) is pytorch_optimizer.Prodigy
    assert type(build_optimizer("adafactor", _weights().values(), 1e-3)) is torch.optim.Adafactor
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ValueError, match=r"pip install 'acclimate\[optimizers\]'"):
        build_optimizer("lars", _weights().values(), 0.1)


@pytest.mark.parametrize(
    ("name", "flat", "convolution"),
    [("sgd", 1, 1), ("adam", 2, 2), ("lars", 1, 1), ("prodigy", 4, 4), ("adafactor", 1, 2 / 3), ("rprop", 2, 2)],
)
def test_copies_that_an_optimiser_keeps(name: str, flat: float, convolution: float) -> None:
    """As published: one momentum; two moments; s, p0 and two moments; one variance, or sums over rows and columns."""
    assert moments(name) == flat and moments(name, dimensions=4) == pytest.approx(convolution)


@pytest.mark.parametrize("name", ["lbfgs", "sparseadam", "optimizer", "adamm", "", "lr_scheduler", "os"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ValueError, match="without a closure"):
        build_optimizer(name, _weights().values(), 0.1)
