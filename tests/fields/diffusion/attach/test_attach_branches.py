"""Guidance that takes several forwards: each is a trajectory of its own."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

import torch
from plain_exchange import PlainExchange
from tiny_transformers import built, drawn
from torch import Tensor, nn

from acclimate.fields.diffusion.attach.branches import Branches
from acclimate.fields.diffusion.attach.compact import compact
from acclimate.fields.diffusion.attach.compacted import Compacted

STEPS = (900, 800, 700, 600)


@pytest.mark.parametrize(
    ("timesteps", "expected"),
    [
        ((9, 8, 7), [0, 0, 0]),
        ((9, 9, 8, 8), [0, 1, 0, 1]),
        ((9.0, torch.tensor(9.0), torch.full((2,), 9), 8), [0, 1, 2, 0]),
        ((None, None, 9, 9), [0, 0, 0, 1]),
    ],
)
def test_forwards_with_one_timestep_are_branches(timesteps: tuple[Tensor | float], expected: list[int]) -> None:
    branches = Branches()
    assert [branches.next(timestep) for timestep in timesteps] == expected


def test_a_given_number_of_branches_takes_turns_and_a_chosen_one_stays() -> None:
    branches = Branches(3)
    assert [branches.next(9) for _ in range(4)] == [0, 1, 2, 0]
    branches.reset()
    assert branches.next(9) == 0
    branches.choose(5)
    branches.reset()
    assert [branches.next(timestep) for timestep in (9, 9, 8)] == [5, 5, 5]
    branches.choose(None)
    assert branches.next(9) == 0
    for wrong in (0, True, 1.5):
        with pytest.raises(ValueError, match="branches"):
            Branches(wrong)
    with pytest.raises(ValueError, match="branch"):
        branches.choose(-1)


def test_a_reset_forgets_the_last_timestep() -> None:
    model, _ = built("dit")
    exchange = PlainExchange()
    with Compacted(model, exchange) as compacted:
        for _ in range(2):
            with compacted.image():
                answer(model, 0, 0)
    assert exchange.seen == [(0, 0), (0, 1)] * 2 and exchange.resets == 2


def answer(model: nn.Module, step: int, label: int) -> Tensor:
    latent = drawn(1, 4, 8, 8) + 0.1 * step
    with torch.no_grad():
        return model(latent, timestep=torch.tensor([STEPS[step]]), class_labels=torch.tensor([label])).sample


def test_guidance_by_two_forwards_is_as_each_of_them_alone() -> None:
    model, _ = built("dit")
    labels = (3, 9)
    alone: list[list[Tensor]] = []
    for label in labels:
        with compact(model, devices=2, codec="one_bit"):
            alone.append([answer(model, step, label) for step in range(4)])
    with compact(model, devices=2, codec="one_bit") as compacted:
        both = [[answer(model, step, label) for label in labels] for step in range(4)]
        assert {key.branch for key in compacted.stats().errors} == {0, 1}
    for step in range(4):
        for branch in range(2):
            assert torch.equal(both[step][branch], alone[branch][step])
    with compact(model, devices=2, codec="one_bit") as compacted:
        compacted.branch(0)
        mixed = [[answer(model, step, label) for label in labels] for step in range(4)]
    assert not torch.equal(mixed[3][0], alone[0][3])  # one base for both: what branches are there to prevent


def test_a_chosen_branch_is_that_of_the_exchange() -> None:
    model, _ = built("dit")
    exchange = PlainExchange()
    with Compacted(model, exchange, branches=2) as compacted:
        answer(model, 0, 1)
        answer(model, 1, 1)
        compacted.branch(7)
        answer(model, 2, 1)
    assert [branch for branch, layer in exchange.seen if layer == 0] == [0, 1, 7]
