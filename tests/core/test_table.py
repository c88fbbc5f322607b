"""The declared state: declaring, merging by rule, generators, restart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from acclimate.core.table import Merge, Table
from conformance.tools import assert_same


def _table(*values: float, merge: Merge = "mean", dtype: torch.dtype = torch.float32) -> Table:
    table = Table()
    table.declare("x", torch.tensor(values, dtype=dtype), initial=0.0, kind="statistics", merge=merge)
    return table


@pytest.mark.parametrize(
    ("merge", "expected"),
    [("mean", [3.0, -1.0]), ("sum", [9.0, -3.0]), ("max", [6.0, 2.0]), ("first", [1.0, 2.0])],
)
def test_merge_by_rule(merge: Merge, expected: list[float]) -> None:
    tables = [_table(*values, merge=merge) for values in ([1, 2], [2, -4], [6, -1])]
    tensor = tables[0].slots["x"].tensor
    tables[0].merge(tables[1:])
    assert tables[0].slots["x"].tensor is tensor and tensor.tolist() == expected
    assert tables[1].slots["x"].tensor.tolist() == [2, -4], "the others are left alone"


def test_whole_numbers_have_no_mean() -> None:
    first, second = _table(1, 7, dtype=torch.int64), _table(4, 2, dtype=torch.int64)
    first.merge([second])
    assert first.slots["x"].tensor.tolist() == [4, 7]


def test_merge_with_nobody() -> None:
    table = _table(1, 2)
    table.merge([])
    assert table.slots["x"].tensor.tolist() == [1, 2]


def _descended(value: float, steps: int) -> Table:
    table, weight = Table(), torch.nn.Parameter(torch.full((2,), value))
    table.declare("w", weight, initial=torch.zeros(2), kind="weights")
    table.declare_optimizer("optimizer", torch.optim.Adam([weight], lr=0.1), {"w": weight})
    for _ in range(steps):
        table.optimizers["optimizer"].step({"w": torch.full((2,), value)})
    return table


def test_merge_of_optimisers() -> None:
    """Moments by mean, step counts by maximum; a replica that has not stepped counts as it is."""
    one, two = _descended(1.0, 1), _descended(3.0, 4)
    kept = [{n: s.tensor.detach().clone() for n, s in t.entries()} for t in (one, two)]
    one.merge([two])
    found: dict[str, Tensor] = {name: slot.tensor for name, slot in one.entries()}
    moment, step = "optimizer/state/w/exp_avg", "optimizer/state/w/step"
    torch.testing.assert_close(found[moment], (kept[0][moment] + kept[1][moment]) / 2)
    assert float(found[step]) == 4
    torch.testing.assert_close(found["w"].detach(), (kept[0]["w"] + kept[1]["w"]) / 2)


def test_merge_into_a_replica_that_has_not_stepped() -> None:
    """Weights that have learned come with the moments they were learned with."""
    fresh, busy = _descended(1.0, 0), _descended(3.0, 2)
    fresh.merge([busy])
    assert "optimizer/state/w/exp_avg" in dict(fresh.entries())


@pytest.mark.parametrize("name", ["x", "a/b"])
def test_names_are_declared_once_and_hold_no_slash(name: str) -> None:
    table = _table(1)
    with pytest.raises(ValueError, match="once"):
        table.declare(name, torch.zeros(1), initial=0.0, kind="statistics")


def test_reset_fills_numbers_and_copies_tensors() -> None:
    table = Table(seed=3)
    initial = torch.tensor([5.0, 6.0])
    table.declare("a", torch.ones(2), initial=initial, kind="statistics")
    table.declare("b", torch.ones(3), initial=2.5, kind="statistics")
    table.counters["batches"] = 7
    drawn = torch.rand(2, generator=table.generator("g"))
    table.reset()
    assert table.slots["a"].tensor.tolist() == [5, 6] and table.slots["b"].tensor.tolist() == [2.5] * 3
    assert table.counters == {"batches": 0}
    assert_same(torch.rand(2, generator=table.generator("g")), drawn, "the first draw")
    table.slots["a"].tensor.add_(1)
    assert initial.tolist() == [5, 6], "the reset value has storage of its own"


def test_restart_sets_back_counters_of_what_was_learned() -> None:
    table = Table()
    table.counters["batches"] = 4
    table.count("seen")
    table.counters["seen"] = 3
    kept = table.snapshot()
    table.restart()
    assert table.counters == {"batches": 4, "seen": 0}
    table.restore(kept)
    assert table.counters == {"batches": 4, "seen": 3}
    table.reset()
    assert table.counters == {"batches": 0, "seen": 0}


def test_restart_leaves_counters_and_generators() -> None:
    table = _table(1, 2)
    table.counters["batches"] = 4
    state = table.generator("g").get_state()
    torch.rand(2, generator=table.generator("g"))
    moved = table.generator("g").get_state()
    table.restart()
    assert table.slots["x"].tensor.tolist() == [0, 0] and table.counters["batches"] == 4
    assert torch.equal(table.generator("g").get_state(), moved) and not torch.equal(moved, state)


def test_generators_differ_by_name_and_seed() -> None:
    draws = {
        (seed, name): tuple(torch.rand(4, generator=Table(seed).generator(name)).tolist())
        for seed in (0, 1, 2, -1, 2**31, 2**40)
        for name in ("a", "b", "ab", "ba")
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[0, "a"] == tuple(torch.rand(4, generator=Table(0).generator("a")).tolist())


def test_bytes_by_kind() -> None:
    table = _descended(1.0, 1)
    table.declare("m", torch.zeros(3, dtype=torch.float64), initial=0.0, kind="memory")
    assert table.bytes() == {"weights": 8, "memory": 24, "optimizer": 16, "counters": 4}


def test_what_is_not_persistent_is_not_exported_but_rolled_back() -> None:
    table = Table()
    table.declare("x", torch.zeros(2), initial=0.0, kind="memory", persistent=False)
    kept = table.snapshot()
    table.slots["x"].tensor.add_(1)
    assert "x" not in table.export()[0]
    other = Table()
    other.declare("x", torch.ones(2), initial=0.0, kind="memory", persistent=False)
    other.adopt(*table.export())
    assert other.slots["x"].tensor.tolist() == [0, 0]
    table.restore(kept)
    assert table.slots["x"].tensor.tolist() == [0, 0]
