"""Guidance that takes several forwards: each is a trajectory of its own."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

from itertools import pairwise

import diffusers
import numpy as np
import torch
from plain_exchange import PlainExchange
from tiny_transformers import built, drawn
from torch import Tensor, nn

from acclimate.fields.diffusion.attach.branches import Branches
from acclimate.fields.diffusion.attach.compact import compact
from acclimate.fields.diffusion.attach.compacted import Compacted

STEPS = (900, 800, 700, 600)


TEXT, NONE, OTHER = torch.ones(1, 3), torch.zeros(1, 3), torch.full((1, 3), 2.0)


@pytest.mark.parametrize(
    ("forwards", "expected"),
    [
        (((9, TEXT), (8, TEXT), (7, TEXT)), [0, 0, 0]),
        (((9, TEXT), (9, NONE), (8, TEXT), (8, NONE)), [0, 1, 0, 1]),
        (((9, NONE), (torch.tensor(9), TEXT), (torch.full((2,), 8), NONE), (8.0, TEXT)), [0, 1, 0, 1]),
        (((9, TEXT), (9, NONE), (9, OTHER), (8, TEXT), (8, NONE), (8, OTHER)), [0, 1, 2, 0, 1, 2]),
        (((9, TEXT), (9, TEXT), (8, TEXT), (8, TEXT)), [0, 0, 0, 0]),  # rounded timesteps, or Heun's method
        (((9, TEXT), (9, NONE), (9, TEXT), (9, NONE)), [0, 1, 0, 1]),
        (((9, TEXT), (8, TEXT), (8, NONE), (7, TEXT), (7, NONE), (6, TEXT)), [0, 0, 1, 0, 1, 0]),
        (((9, TEXT), (9, NONE), (8, OTHER), (8, NONE)), [0, 1, 0, 1]),  # another prompt from here on
        (((9, NONE), (9, TEXT), (8, NONE), (8, OTHER)), [0, 1, 0, 1]),
        (((None, TEXT), (None, TEXT)), [0, 0]),
    ],
)
def test_forwards_are_told_by_what_they_are_conditioned_on(
    forwards: tuple[tuple[Tensor | float | None, Tensor]], expected: list[int]
) -> None:
    for name in ("encoder_hidden_states", "pooled_projections", "class_labels"):
        branches = Branches()
        assert [branches.next(timestep, {name: value.clone()}) for timestep, value in forwards] == expected


def test_conditions_are_kept_as_they_were() -> None:
    branches, label = Branches(), torch.tensor([3])
    assert branches.next(9, {"class_labels": label}) == 0
    label.fill_(10)
    assert branches.next(9, {"class_labels": label}) == 1
    label.fill_(3)
    assert branches.next(8, {"class_labels": label}) == 0


def test_layers_that_are_left_out_are_a_condition() -> None:
    branches = Branches()
    every = [{"encoder_hidden_states": text, "skip_layers": skip} for text, skip in
             ((TEXT, None), (NONE, None), (TEXT, [7, 8]))]  # fmt: skip
    assert [branches.next(timestep, given) for timestep in (9, 8) for given in every] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("timesteps", "expected"),
    [
        ((9, 8, 7), [0, 0, 0]),
        ((9, 9, 8, 8), [0, 1, 0, 1]),
        ((9.0, torch.tensor(9.0), torch.full((2,), 9), 8), [0, 1, 2, 0]),
        ((None, None, 9, 9), [0, 0, 0, 1]),
    ],
)
def test_forwards_whose_conditions_are_not_known_are_told_by_the_timestep(
    timesteps: tuple[Tensor | float], expected: list[int]
) -> None:
    branches = Branches()
    assert [branches.next(timestep) for timestep in timesteps] == expected


def test_timesteps_that_are_equal_once_rounded_are_no_guidance() -> None:
    """Flux in bfloat16 at 2048 x 2048: its scheduler's 28 timesteps, shifted for 16,384 tokens."""
    shift = (1.15 - 0.5) / (4096 - 256) * (16384 - 256) + 0.5
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 28, 28), mu=shift)
    rounded = [timestep.bfloat16() / 1000 for timestep in scheduler.timesteps]
    assert any(one == other for one, other in pairwise(rounded))
    branches, given = Branches(), {"encoder_hidden_states": TEXT, "pooled_projections": NONE}
    assert [branches.next(timestep.expand(1), given) for timestep in rounded] == [0] * 28
    guided = Branches()
    found = [guided.next(timestep, {"encoder_hidden_states": each}) for timestep in rounded for each in (TEXT, NONE)]
    assert found == [0, 1] * 28


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
        for label in (0, 1):
            with compacted.image():
                answer(model, 0, label)
    assert exchange.seen == [(0, 0), (0, 1)] * 2 and exchange.resets == 2


def test_one_timestep_and_class_again_is_the_same_branch() -> None:
    model, _ = built("dit")
    exchange = PlainExchange()
    with Compacted(model, exchange):
        for label in (3, 3, 9, 3):
            answer(model, 0, label)
    assert [branch for branch, layer in exchange.seen if layer == 0] == [0, 0, 1, 0]


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
