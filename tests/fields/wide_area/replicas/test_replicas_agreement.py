"""Ranks that would train different replicas do not start, or are noticed at the next parity check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lockstep import EXACT, START, adam, build, sgd, turn

from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.controller import Controller
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.policy.fixed import Static
from acclimate.fields.wide_area.policy.guard import Guard
from acclimate.fields.wide_area.replicas.agreement import described, hyperparameters, sampled, sealed
from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.links.traces import constant
from acclimate.wire.faults import Disagreement
from acclimate.wire.simulated import world


def pair(given: Callable[[int], dict[str, Any]]) -> None:
    """Start two ranks with what is given to each."""
    for transport in world(2, [(constant(1e6), 0.1)]):
        x = torch.nn.Parameter(torch.from_numpy(START + transport.rank))
        usual: dict[str, Any] = {"parameters": [x], "base": sgd, "transport": transport, "policy": Setting(1, 0.1)}
        DeCoSGD(**{**usual, **given(transport.rank)})


def noisy(rank: int) -> DeCo:
    return DeCo(noise=lambda contraction, staleness: (1 + rank) / contraction + staleness)


BASES = "the base optimiser"
DIFFERENT: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "step size": (BASES, lambda rank: {"base": lambda p: torch.optim.SGD(p, lr=0.1 * (rank + 1))}),
    "momentum": (BASES, lambda rank: {"base": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9 * rank)}),
    "step size in a tensor": (BASES, lambda rank: {"base": lambda p: torch.optim.Adam(p, torch.tensor(0.1 + rank))}),
    "kind": (BASES, lambda rank: {"base": adam if rank else sgd}),
    "schedule": (BASES, lambda rank: {"schedule": lambda number: 1 / (1 + rank)}),
    "late schedule": (BASES, lambda rank: {"schedule": lambda number: 0.1**rank if number >= 50 else 1.0}),
    "no schedule": (BASES, lambda rank: {"schedule": (lambda number: 1.0) if rank else None}),
    "fields": ("the policy", lambda rank: {"policy": Static(staleness=1 + rank)}),
    "noise": ("the policy", lambda rank: {"policy": noisy(rank)}),
    "function": ("the policy", lambda rank: {"policy": lambda step: Setting(1 + (step > 30) * rank, 0.1)}),
    "controller": ("the policy", lambda rank: {"policy": Controller(DeCo(), 1e3, patience=2 + rank)}),
    "guard": ("the policy", lambda rank: {"policy": Controller(DeCo(), 1e3, guard=Guard(curvature=1.0 + rank))}),
    "curvature": ("arguments", lambda rank: {"policy": DeCo(), "curvature": bool(rank)}),
    "shape": ("shapes", lambda rank: {"parameters": [torch.nn.Parameter(torch.zeros(2 + 4 * rank, 6 - 4 * rank))]}),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_ranks_that_differ_do_not_start(name: str) -> None:
    what, given = DIFFERENT[name]
    with pytest.raises(Disagreement, match=what):
        pair(given)
    pair(lambda _: given(1))  # as long as they are the same, all of it is allowed


def test_a_scheduler_on_one_rank_is_noticed_by_the_parity_check() -> None:
    workers = build(2, policy=Setting(1, 0.3), parity_every=4)
    for _ in range(2):
        turn(workers)
    workers[1][0].base.param_groups[0]["lr"] *= 0.5
    with pytest.raises(Disagreement, match=r"step sizes or settings of ranks \[1\] differ"):
        for _ in range(6):
            turn(workers)
    through = build(2, policy=Setting(1, 0.3), parity_every=4)
    for _ in range(10):
        turn(through)
        for training, _ in through:
            training.base.param_groups[0]["lr"] *= 0.9
    assert torch.equal(through[0][1], through[1][1])


def test_settings_that_part_late_are_noticed_by_the_parity_check() -> None:
    workers = []
    for transport in world(2, [(constant(1e6), 0.1)]):
        late = transport.rank
        x = torch.nn.Parameter(torch.from_numpy(START.copy()))
        plan = lambda step, late=late: Setting(1 + late * (step >= 34), 0.3)  # noqa: E731
        workers.append((DeCoSGD([x], sgd, transport=transport, policy=plan, entries=EXACT, parity_every=9), x))
    with pytest.raises(Disagreement, match=r"settings of ranks \[1\] differ from those of rank 0 at iteration 36"):
        for _ in range(40):
            turn(workers)


def test_descriptions_hold_no_addresses_and_no_tensors() -> None:
    x = torch.zeros(3, requires_grad=True)
    one, other = (torch.optim.AdamW([{"params": [x], "lr": 0.3}], betas=(0.8, 0.9)) for _ in range(2))
    found = hyperparameters(one, [x])
    assert found == hyperparameters(other, [x]) and "0x" not in str(found)
    assert found["groups"][0]["lr"] == 0.3 and found["groups"][0]["betas"] == [0.8, 0.9]
    assert described(Controller(DeCo(), 1.0)) == described(Controller(DeCo(), 1.0))
    assert "0x" not in str(described(Controller(noisy(0), 1.0)))
    assert described(torch.zeros(2, 2)) == ["torch.float32", 2, 2]
    assert sealed(sampled({0: 1.0}.__getitem__, range(2))) == sealed([1.0, "KeyError"])
