"""The hook's checkpoint: bit for bit, although DDP cuts its buckets otherwise in the first iteration after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from jobs import launch
from lockstep import EXACT
from test_replicas_ranks import Three, batch, listed
from torch.nn.parallel import DistributedDataParallel

from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.replicas.checkpoint import load_checkpoint, save_checkpoint
from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.fields.wide_area.replicas.hook import DelayedHook
from acclimate.fields.wide_area.replicas.pieces import Piece, regrouped
from acclimate.links.traces import constant
from acclimate.wire.emulated import EmulatedTransport
from acclimate.wire.faults import Disagreement
from acclimate.wire.gloo import GlooTransport

CASES = {"compressed": (7, 2), "before the buckets are cut anew": (1, 2), "cut anew once compressed": (1, 1)}
"""Iterations before the checkpoint, and dense ones."""


def plan(step: int) -> Setting:
    return Setting([1, 3, 0, 2][step // 4 % 4], [0.1, 0.4, 0.02][step // 3 % 3])


class Script:
    """A training script with the hook: its model, its optimiser, its loop."""

    def __init__(self, transport: Any, **given: Any) -> None:
        self.model = DistributedDataParallel(Three(), bucket_cap_mb=0.002)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.hook = DelayedHook(self.model, transport=transport, entries=EXACT, **given)

    def run(self, steps: int) -> Script:
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.model(batch(dist.get_rank(), self.hook.step)).square().mean().backward()
            self.optimizer.step()
        return self

    def kept(self) -> dict[str, Any]:
        model = {name: each.clone() for name, each in self.model.state_dict().items()}
        state = self.optimizer.state_dict()
        moments = {place: {name: each.clone() for name, each in of.items()} for place, of in state["state"].items()}
        return {"model": model, "optimizer": {**state, "state": moments}}

    def load(self, kept: dict[str, Any]) -> None:
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])

    def weights(self) -> list[float]:
        self.hook.drain(self.optimizer.step)
        return listed(torch.cat([each.detach().reshape(-1) for each in self.model.parameters()]))


def resumed(rank: int, size: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    transport = GlooTransport(timeout=60.0)
    for name, (saved, dense) in CASES.items():
        given: Any = {"policy": plan, "dense_iterations": dense, "parity_every": 2}
        path = folder / f"{dense}-{saved}-{rank}.safetensors"
        script = Script(transport, **given).run(saved)
        kept, under_way = script.kept(), list(script.hook.in_flight)
        save_checkpoint(script.hook, path)
        through = script.run(9).weights()
        script = Script(transport, **given)
        script.load(kept)
        load_checkpoint(script.hook, path)
        same = under_way == script.hook.in_flight
        found[name] = {"through": through, "resumed": script.run(9).weights(), "same": same, "queue": under_way}
    found["errors"] = refused(transport, rank, folder)
    found["controller"] = steered(transport)
    transport.close()
    return found


def refused(transport: Any, rank: int, folder: Path) -> dict[str, str]:
    """What is said of files that do not fit."""
    found: dict[str, str] = {}
    path = folder / f"2-7-{rank}.safetensors"
    script = Script(transport, policy=plan)
    with pytest.raises(ValueError) as caught:
        load_checkpoint(script.hook, path)
    found["weights"] = str(caught.value)
    x = torch.nn.Parameter(torch.zeros(3))
    training = DeCoSGD([x], lambda params: torch.optim.SGD(params, 0.1), transport=transport, policy=Setting(0, 1.0))
    with pytest.raises(ValueError) as caught:
        load_checkpoint(training, path)
    found["kind"] = str(caught.value)
    script.run(4)
    state = {**script.hook.state_dict(), "queue": [], "step": 4 + rank}
    with pytest.raises(Disagreement) as other:
        script.hook.load_state_dict(state)
    found["step"] = str(other.value)
    with pytest.raises(Disagreement, match="an earlier fault"):
        script.hook.drain(script.optimizer.step)
    return found


def steered(inner: Any) -> dict[str, Any]:
    """Controller and estimator, before and after."""
    transport = EmulatedTransport(inner, constant(1e6), 0.01)
    script = Script(transport, policy=DeCo()).run(12)
    kept, state = script.kept(), script.hook.state_dict()
    again = Script(transport, policy=DeCo())
    again.load(kept)
    again.hook.load_state_dict(state)
    loaded = again.hook.state_dict()
    setting = [again.hook.setting.staleness, again.hook.setting.ratio]
    again.run(5)
    return {
        "before": [state["wheel"], state["estimator"]],
        "after": [loaded["wheel"], loaded["estimator"]],
        "setting": setting,
        "weights": again.weights(),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return launch(resumed, 2, tmp_path_factory.mktemp("hook"))


@pytest.mark.parametrize("name", CASES)
def test_what_is_resumed_ends_as_what_ran_through(name: str, found: list[Any]) -> None:
    one, other = (each[name] for each in found)
    assert one["through"] == one["resumed"] == other["through"] == other["resumed"]
    assert one["same"] and one["queue"] == ([4, 5, 6] if CASES[name][0] == 7 else [])


def test_a_state_that_does_not_fit_is_refused(found: list[Any]) -> None:
    for each in (found[0]["errors"], found[1]["errors"]):
        assert "Load the state of the model" in each["weights"]
        assert "no checkpoint of this version of DeCoSGD" in each["kind"]
        assert "ranks [1] differ from rank 0 in the iteration" in each["step"]


def test_controller_and_estimator_are_part_of_the_state(found: list[Any]) -> None:
    for each in (found[0]["controller"], found[1]["controller"]):
        assert each["before"] == each["after"] and each["before"][1]["seen"]
        assert each["setting"] == [each["before"][0]["controller"][name] for name in ("staleness", "ratio")]
        assert each["weights"] == found[0]["controller"]["weights"]


def test_gradients_are_regrouped_by_parameter() -> None:
    parameters = [torch.zeros(2, 3), torch.zeros(4), torch.zeros(5)]
    flat = [torch.arange(9.0), torch.arange(100.0, 106.0)]
    given = [(Piece([1, 2], [parameters[1], parameters[2]]), flat[0]), (Piece([0], [parameters[0]]), flat[1])]
    wanted = [Piece([0], [parameters[0]]), Piece([2], [parameters[2]]), Piece([1], [parameters[1]])]
    cut = list(regrouped(given, wanted))
    assert cut[0] is flat[1]
    assert [each.tolist() for each in cut[1:]] == [[4.0, 5.0, 6.0, 7.0, 8.0], [0.0, 1.0, 2.0, 3.0]]
