"""Real processes over gloo: the same weights as in the simulation, the hook for DDP, and every fault as an error."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from jobs import launch
from lockstep import EXACT, START, adam, build, gradient, sgd, turn
from torch.distributed.distributed_c10d import _world
from torch.nn.parallel import DistributedDataParallel

from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.replicas.checkpoint import load_checkpoint, save_checkpoint
from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.fields.wide_area.replicas.hook import DelayedHook
from acclimate.links.traces import constant
from acclimate.wire.emulated import EmulatedTransport
from acclimate.wire.faults import Disagreement, LinkFault
from acclimate.wire.gather import GatherTransport
from acclimate.wire.gloo import GlooTransport
from acclimate.wire.transport import Transport

TIMEOUT = 4.0


def plan(step: int) -> Setting:
    return Setting([1, 3, 0, 2, 4][step // 7 % 5], [0.1, 0.4, 1.0, 0.02][step // 5 % 4])


def train(training: DeCoSGD, x: torch.nn.Parameter, steps: int, pause: float = 0.0) -> None:
    for _ in range(steps):
        training.begin()
        x.grad = torch.from_numpy(gradient(dist.get_rank(), training.step, x.detach().numpy()))
        time.sleep(pause)
        training.end()


def start(transport: Transport, **given: Any) -> tuple[DeCoSGD, torch.nn.Parameter]:
    x = torch.nn.Parameter(torch.from_numpy(START + transport.rank))
    return DeCoSGD([x], transport=transport, **{"entries": EXACT, "base": sgd, **given}), x


def listed(x: torch.Tensor) -> list[float]:
    return x.detach().reshape(-1).tolist()


def healthy(rank: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    transport = GlooTransport(timeout=60.0)
    training, x = start(transport, base=adam, policy=plan, parity_every=10)
    train(training, x, 30)
    save_checkpoint(training, folder / f"checkpoint-{rank}.safetensors")
    train(training, x, 20)
    training.drain()
    found["gloo"] = listed(x)
    again, y = start(transport, base=adam, policy=plan, parity_every=10)
    load_checkpoint(again, folder / f"checkpoint-{rank}.safetensors")
    train(again, y, 20)
    again.drain()
    found["again"] = listed(y)
    letters = [transport.submit(torch.zeros(length, dtype=torch.uint8)) for length in (64, *[1 << 23] * 5)]
    found["spreads"] = [letter.timing.spread for letter in letters if letter.wait()]
    transport.close()
    for call in (
        lambda: transport.submit(torch.zeros(8)),
        lambda: transport.agree(b"x", ""),
        lambda: transport.share(x),
    ):
        with pytest.raises(LinkFault, match="GlooTransport is closed"):
            call()
    gathering = GatherTransport(groups=3, backend="gloo", timeout=60.0)
    training, x = start(gathering, base=adam, policy=plan)
    train(training, x, 50)
    training.drain()
    found["gather"] = listed(x)
    gathering.close()
    before = len(_world.pg_map)
    inner = GlooTransport(timeout=60.0)
    found["groups"] = before - len(_world.pg_map)
    slow = EmulatedTransport(inner, constant(2e5 / (1 + rank)), 0.03)
    training, x = start(slow, policy=DeCo())
    settings = []
    for _ in range(30):
        train(training, x, 1, pause=0.01)
        settings.append([training.setting.staleness, training.setting.ratio])
    training.drain()
    found["decided"], found["settings"] = listed(x), settings
    inner.close()
    (folder / f"healthy-{rank}.json").write_text(json.dumps(found))
    return found


def two(rank: int, size: int, folder: Path) -> dict[str, Any]:
    return {**healthy(rank, folder), **hooked(rank, folder)}


def three(rank: int, size: int, folder: Path) -> dict[str, Any]:
    return {**healthy(rank, folder), **faulty(rank, folder)}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    """What the ranks of two jobs report; in the larger one rank 1 dies at last."""
    folders = {size: tmp_path_factory.mktemp(f"ranks{size}") for size in (2, 3)}
    return {2: launch(two, 2, folders[2]), 3: launch(three, 3, folders[3], gone=1)}


def test_closed_groups_are_taken_down_at_the_next_meeting(jobs: dict[int, list[Any]]) -> None:
    """Four of the all-gather's, and one is made."""
    assert all(each["groups"] == 3 for each in (*jobs[2], *jobs[3][:1]))


@pytest.mark.parametrize("size", [2, 3])
def test_processes_train_as_the_simulation_does(size: int, jobs: dict[int, list[Any]]) -> None:
    workers = build(size, adam, policy=plan)
    for _ in range(50):
        turn(workers)
    for training, _ in workers:
        training.drain()
    found = jobs[size]
    for each in found:
        for name in ("gloo", "again", "gather"):
            assert each[name] == listed(workers[0][1]), name
        assert math.isnan(each["spreads"][0]) and min(each["spreads"][1:]) >= 0
        assert 1e-4 < max(each["spreads"][1:]) < 20  # a single one may be seen late, when the rest is here already
        assert each["decided"] == found[0]["decided"]
        assert each["settings"] == found[0]["settings"]
    assert len({tuple(each) for each in found[0]["settings"]}) > 1


class Three(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(3))).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).tanh()


def batch(rank: int, step: int) -> torch.Tensor:
    return torch.randn(4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(100 * rank + step))


def hooked(rank: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, ratio in (("dense", 1.0), ("sparse", 0.2)):
        model = DistributedDataParallel(Three(), bucket_cap_mb=0.002)
        transport = GlooTransport(timeout=60.0)
        hook = DelayedHook(model, transport=transport, policy=Setting(2, ratio), entries=EXACT, parity_every=3)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        norms, filling = [], []
        for step in range(12):
            optimiser.zero_grad()
            model(batch(rank, step)).square().mean().backward()
            norms.append(sum(float(each.grad.abs().sum()) for each in model.parameters() if each.grad is not None))
            filling.append(hook.filling)
            optimiser.step()
        drained = hook.drain(optimiser.step)
        weights = torch.cat([each.detach().reshape(-1) for each in model.parameters()])
        buckets = len(hook._buckets)  # pyright: ignore[reportPrivateUsage]
        found[name] = {"norms": norms, "filling": filling, "drained": drained, "buckets": buckets, "x": listed(weights)}
        transport.close()
    return found


def test_the_hook_delays_gradients_of_ddp(jobs: dict[int, list[Any]]) -> None:
    """The dense one against gradients of the mean loss, each applied when it is due."""
    found = jobs[2]
    for name in ("dense", "sparse"):
        one, other = found[0][name], found[1][name]
        assert one["x"] == other["x"]
        assert one["buckets"] >= 3
        assert one["drained"] == 2
        assert [norm == 0 for norm in one["norms"]] == [step in (2, 3) for step in range(12)] == one["filling"]
    model, computed = Three(), []
    for step in range(14):
        if step < 12:
            loss = sum(model(batch(rank, step)).square().mean() for rank in range(2)) / 2
            computed.append(torch.autograd.grad(loss, list(model.parameters())))  # pyright: ignore[reportArgumentType]
        due = step if step < 2 else step - 2 if step > 3 else None
        if due is not None:
            for each, g in zip(model.parameters(), computed[due], strict=True):
                each.data -= 0.1 * g
    expected = torch.cat([each.detach().reshape(-1) for each in model.parameters()])
    torch.testing.assert_close(torch.tensor(found[0]["dense"]["x"], dtype=torch.float64), expected, rtol=0, atol=1e-12)


class Forger:
    """Passes messages on, but for one that it replaces."""

    def __init__(self, inner: Transport, number: int, forge: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._inner, self._number, self._forge, self._sent = inner, number, forge, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def submit(self, packet: torch.Tensor) -> Any:
        self._sent += 1
        return self._inner.submit(self._forge(packet) if self._sent == self._number else packet)


def caught(training: DeCoSGD, x: torch.nn.Parameter, steps: int = 8) -> dict[str, Any]:
    """The fault that training ends with, how long it took, and whether weights and later calls are as they should."""
    begun = time.monotonic()
    try:
        train(training, x, steps)
        training.drain()
    except LinkFault as fault:
        kept, took = x.detach().clone(), time.monotonic() - begun
        with pytest.raises(type(fault), match="an earlier fault"):
            training.drain()
        same = bool(torch.equal(kept, x))
        return {"kind": type(fault).__name__, "text": str(fault), "took": took, "kept": same, "at": training.applied}
    return {"kind": "none"}


def doubled(packet: torch.Tensor) -> torch.Tensor:
    return torch.cat((packet, packet))


def flipped(packet: torch.Tensor) -> torch.Tensor:
    changed = packet.clone()
    changed[40] ^= 1
    return changed


def faulty(rank: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    policy = Setting(1, 0.2)
    for name, forge in (("length", doubled), ("flipped", flipped)):
        inner = GlooTransport(timeout=TIMEOUT)
        transport: Any = Forger(inner, 4, forge) if rank == 1 else inner
        found[name] = caught(*start(transport, policy=policy))
        inner.close()
        dist.barrier()
    transport = GlooTransport(timeout=TIMEOUT)
    training, x = start(transport, policy=policy)
    train(training, x, 4)
    if rank == 1:
        time.sleep(2 * TIMEOUT)
    found["hangs"] = caught(training, x)
    transport.close()
    dist.barrier()
    transport = GlooTransport(timeout=TIMEOUT)
    try:
        start(transport, policy=Setting(1, 0.1 * (1 + rank)))
        found["differs"] = {"kind": "none"}
    except Disagreement as fault:
        found["differs"] = {"kind": "Disagreement", "text": str(fault)}
    transport.close()
    transport = GlooTransport(timeout=TIMEOUT)
    training, x = start(transport, policy=policy)
    train(training, x, 4)
    if rank == 1:
        (folder / "1.json").write_text(json.dumps({**json.loads((folder / "healthy-1.json").read_text()), **found}))
        os._exit(9)
    found["dies"] = caught(training, x)
    transport.close()
    return found


def test_every_fault_is_an_error_on_every_rank(jobs: dict[int, list[Any]]) -> None:
    for rank, each in enumerate(jobs[3]):
        for name in ("length", "hangs", *(() if rank == 1 else ("dies",))):
            assert each[name]["kind"] == "LostPeer", name
            assert "did not come from every rank" in each[name]["text"]
        assert each["flipped"]["kind"] == "GarbledPacket"
        assert "the packet of rank 1 for iteration 3" in each["flipped"]["text"]
        assert each["differs"]["kind"] == "Disagreement"
        assert "ranks [1, 2] differ from rank 0" in each["differs"]["text"]
        for name in ("length", "hangs", "flipped"):
            assert each[name]["kept"]
            assert each[name]["took"] < 3 * TIMEOUT + 5
