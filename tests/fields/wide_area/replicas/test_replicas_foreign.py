"""Checkpoints of anything else are refused, and what is refused changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lockstep import EXACT, Base, adam, build, momentum, sgd, turn

from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.replicas.checkpoint import load_checkpoint, save_checkpoint
from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.fields.wide_area.replicas.steering import Steering
from acclimate.fields.wide_area.wire.entries import Entries
from acclimate.links.traces import constant
from acclimate.wire.faults import Disagreement
from acclimate.wire.simulated import world

SETTING = Setting(2, 0.3)


def saved(folder: Path) -> list[Path]:
    """Files of two ranks after five iterations."""
    workers = build(2, momentum, policy=SETTING)
    for _ in range(5):
        turn(workers)
    paths = [folder / f"{rank}.safetensors" for rank in range(2)]
    for (training, _), path in zip(workers, paths, strict=True):
        save_checkpoint(training, path)
    return paths


def shaped(*shapes: tuple[int, ...]) -> DeCoSGD:
    """Rank 0 of two with parameters of these shapes."""
    made = [
        DeCoSGD(
            [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in shapes],
            momentum, transport=transport, policy=SETTING, entries=EXACT,
        )
        for transport in world(2, [(constant(1e6), 0.1)])
    ]  # fmt: skip
    return made[0]


def first(n: int = 2, base: Base = momentum, policy: Steering = SETTING, **given: Any) -> DeCoSGD:
    return build(n, base, policy=policy, **given)[0][0]


FOREIGN: dict[str, tuple[str, Callable[[], DeCoSGD]]] = {
    "ranks": ("size is 2 in the checkpoint and 3 here", lambda: first(n=3)),
    "one rank": ("size is 2 in the checkpoint and 1 here", lambda: first(n=1)),
    "matrix": (r"shapes is \[\[40\]\] in the checkpoint and \[\[8, 5\]\] here", lambda: shaped((8, 5))),
    "two": (r"shapes is \[\[40\]\] in the checkpoint and \[\[8\], \[32\]\] here", lambda: shaped((8,), (32,))),
    "base": ("base is SGD in the checkpoint and Adam here", lambda: first(base=adam)),
    "entries": ("entries is .*same.* in the checkpoint and .*float32.* here", lambda: first(entries=Entries())),
    "feedback": ("feedback is True in the checkpoint and False here", lambda: first(feedback=False)),
    "policy": ("another kind of policy", lambda: first(policy=DeCo())),
}


def everything(training: DeCoSGD) -> str:
    return str(training.state_dict())


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_checkpoints_are_refused_and_change_nothing(name: str, tmp_path: Path) -> None:
    told, make = FOREIGN[name]
    path, training = saved(tmp_path)[0], make()
    before = everything(training)
    with pytest.raises(ValueError, match=told):
        load_checkpoint(training, path)
    assert everything(training) == before
    training.begin()


def test_the_file_of_another_rank_is_refused(tmp_path: Path) -> None:
    paths = saved(tmp_path)
    with pytest.raises(ValueError, match="rank is 1 in the checkpoint and 0 here"):
        load_checkpoint(first(), paths[1])


def without(state: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != name}


def cut(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "queue": state["queue"][1:] + state["queue"][:1]}


def flipped(state: dict[str, Any]) -> dict[str, Any]:
    queue = copy.deepcopy(state["queue"])
    queue[0]["packets"][1][40] ^= 1
    return {**state, "queue": queue}


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "before ranks were kept": ("of", lambda state: without(state, "of")),
    "groups": ("parameter group", lambda state: {**state, "base": {**state["base"], "param_groups": []}}),
    "order": ("messages of others", cut),
    "step": ("messages of others", lambda state: {**state, "step": 6}),
    "damaged": ("rank 1 for iteration 2", flipped),
    "ranks": (
        "of 1 ranks",
        lambda s: {**s, "queue": [{**each, "packets": each["packets"][:1]} for each in s["queue"]]},
    ),
    "error": (r"error has \[3\]", lambda state: {**state, "error": torch.zeros(3)}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_altered_states_are_refused_and_change_nothing(name: str) -> None:
    told, change = CHANGES[name]
    workers = build(2, momentum, policy=SETTING)
    for _ in range(5):
        turn(workers)
    state, training = change(workers[0][0].state_dict()), first()
    before = everything(training)
    with pytest.raises(ValueError, match=told):
        training.load_state_dict(state)
    assert everything(training) == before


def test_checkpoints_with_other_step_sizes_do_not_mix_and_change_nothing() -> None:
    workers, again = build(2, sgd, policy=SETTING), build(2, sgd, policy=SETTING)
    for _ in range(5):
        turn(workers)
    states = [training.state_dict() for training, _ in workers]
    groups = [{**states[1]["base"]["param_groups"][0], "lr": 0.3}]
    states[1]["base"] = {**states[1]["base"], "param_groups": groups}
    again[0][0].load_state_dict(states[0])
    before, weights = again[1][0].base.param_groups[0]["lr"], again[1][1].tolist()
    with pytest.raises(Disagreement, match="step sizes"):
        again[1][0].load_state_dict(states[1])
    assert again[1][0].base.param_groups[0]["lr"] == before and again[1][1].tolist() == weights


def test_a_step_size_changed_in_the_file_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path)[0]
    raw = path.read_bytes()
    at = raw.index(b"0.05", raw.index(b"lr"))
    path.write_bytes(raw[:at] + b"0.35" + raw[at + 4 :])
    with pytest.raises(ValueError, match=r"header of .* does not match its checksum"):
        load_checkpoint(first(), path)


def test_a_plan_that_ends_before_a_checkpoint_changes_nothing() -> None:
    def plan(iteration: int) -> Setting:
        if iteration > 40:
            raise IndexError("no plan for so late")
        return SETTING

    late, short = (build(1, policy=each)[0][0] for each in (lambda _: SETTING, plan))
    before = everything(short)
    with pytest.raises(IndexError, match="no plan"):
        short.load_state_dict({**late.state_dict(), "step": 50})
    assert everything(short) == before
