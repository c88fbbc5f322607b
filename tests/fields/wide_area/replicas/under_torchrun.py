"""A script for torchrun: `python -m torch.distributed.run --nproc-per-node 2 under_torchrun.py hook|decosgd FOLDER`.

Trains three times: across an outage that is waited for, across one that outlasts the timeout, and with rank 1 dying.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from acclimate import wide_area
from acclimate.links.piecewise import Piecewise
from acclimate.wire.transport import Transport

RATE, LATENCY = 1e6, 0.02
BEFORE = 1.0
SETTING = wide_area.Setting(1, 0.2)


def batches(steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(dist.get_rank())
    inputs = torch.randn(steps, 16, 64, generator=generator)
    return [(each, each[:, :10].argmax(1)) for each in inputs]


def by_hook(transport: Transport, steps: int, stop: Callable[[int], None]) -> list[torch.Tensor]:
    """A script that has DDP, and one line more."""
    model = DistributedDataParallel(torch.nn.Linear(64, 10))
    hook = wide_area.DelayedHook(model, transport=transport, policy=SETTING)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, (inputs, labels) in enumerate(batches(steps)):
        stop(step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    hook.drain(optimizer.step)
    return list(model.parameters())


def by_decosgd(transport: Transport, steps: int, stop: Callable[[int], None]) -> list[torch.Tensor]:
    """The script of the documentation."""
    model = torch.nn.Linear(64, 10)
    training = wide_area.DeCoSGD(
        model.parameters(),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        transport=transport,
        policy=SETTING,
        parity_every=10,
    )
    for step, (inputs, labels) in enumerate(batches(steps)):
        stop(step)
        training.begin()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        training.end()
    training.drain()
    return list(model.parameters())


TRAIN = {"hook": by_hook, "decosgd": by_decosgd}


def link(outage: float, timeout: float) -> tuple[wide_area.EmulatedTransport, wide_area.GlooTransport]:
    """One that is down from the first second on."""
    inner = wide_area.GlooTransport(timeout=30.0)
    dist.barrier()
    trace = Piecewise([(BEFORE, RATE), (outage, 0.0), (math.inf, RATE)])
    return wide_area.EmulatedTransport(inner, trace, LATENCY, timeout=timeout), inner


def across(kind: str, outage: float, timeout: float) -> dict[str, object]:
    """What became of a training of some four seconds without the outage."""
    transport, inner = link(outage, timeout)
    begun, turns = time.monotonic(), list[float]()

    def turn(step: int) -> None:
        turns.append(time.monotonic())
        time.sleep(0.05)

    found: dict[str, object] = {}
    try:
        weights = TRAIN[kind](transport, 40, turn)
        found["weights"] = torch.cat([each.detach().reshape(-1) for each in weights]).tolist()
    except wide_area.LinkFault as fault:
        found["fault"], found["text"] = type(fault).__name__, str(fault)
    found["took"] = time.monotonic() - begun
    found["pause"] = max(later - earlier for earlier, later in itertools.pairwise(turns))
    inner.close()
    dist.barrier()
    return found


def main(kind: str, folder: Path, outage: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    TRAIN[kind](
        wide_area.GlooTransport(timeout=30.0), 2, lambda step: None
    )  # the first steps of a process take seconds
    found = {"down": across(kind, outage, 30.0), "cut": across(kind, 20.0, 1.0)}
    (folder / f"{kind}-{rank}.json").write_text(json.dumps(found))
    transport, _ = link(outage, 30.0)
    if rank != 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun would end the others before they say what happened

    def die(step: int) -> None:
        if rank == 1 and step == 5:
            os._exit(9)

    TRAIN[kind](transport, 40, die)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
