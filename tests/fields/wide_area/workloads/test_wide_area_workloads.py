from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acclimate.fields.wide_area.workloads import WORKLOADS, shards


@given(st.integers(1, 6), st.integers(6, 60), st.sampled_from(["iid", "sorted"]), st.integers(0, 5))
def test_shards_share_out_every_example_but_a_rest(workers: int, count: int, kind: str, seed: int) -> None:
    keys = torch.arange(count).remainder(4)
    parts = shards(keys, workers, kind, seed)
    sizes = {len(part) for part in parts}
    together = torch.cat(parts)
    assert len(parts) == workers and sizes == {count // workers}
    assert len(together.unique()) == len(together) > count - workers
    if kind == "sorted":
        assert torch.equal(keys[together], keys[together].sort().values)


def test_shards_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="3 examples for 4 workers"):
        shards(torch.zeros(3, dtype=torch.int64), 4)
    with pytest.raises(ValueError, match="kind"):
        shards(torch.zeros(9, dtype=torch.int64), 2, "mine")


def test_digits_are_learned_by_plain_descent() -> None:
    task = WORKLOADS["digits"]()
    model, draw = task.build(0), task.batches(0, 1, "iid", 0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 64 * 256 + 256 + 256 * 128 + 128 + 1290
    before = task.score(model)
    optimizer = task.base(list(model.parameters()), 0.1)
    for _ in range(400):
        optimizer.zero_grad()
        task.loss(model, draw()).backward()
        optimizer.step()
    assert before < 0.3 and task.score(model) > 0.85


def test_a_worker_sees_its_shard_once_in_each_pass() -> None:
    task = WORKLOADS["digits"]()
    draw = task.batches(1, 4, "sorted", 3)
    mine = set(shards(task.keys, 4, "sorted", 3)[1].tolist())
    seen = torch.cat([draw() for _ in range(250 // 16)])
    assert len(seen.unique()) == len(seen) and set(seen.tolist()) <= mine
    assert len(task.keys[seen].unique()) <= 4


def test_characters_are_predicted_from_those_before_only() -> None:
    task = WORKLOADS["characters"]()
    model = task.build(0).eval()
    text = torch.randint(90, (1, 64), generator=torch.Generator().manual_seed(0))
    other = text.clone()
    other[0, 40:] = 3
    with torch.no_grad():
        a, b = model(text), model(other)
    torch.testing.assert_close(a[:, :40], b[:, :40])
    assert not torch.allclose(a[:, 40:], b[:, 40:])
    assert -7.0 < task.score(model) < -6.0  # about log2(97) bits before anything is learned


@pytest.mark.real_data
def test_images_are_drawn_from_all_classes() -> None:
    task = WORKLOADS["cifar10"]()
    assert task.count == 10_000 and int(task.keys.bincount().min()) > 900
    assert 0.02 < task.score(task.build(0)) < 0.25
