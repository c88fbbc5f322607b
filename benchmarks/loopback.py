"""Real processes on loopback beside the virtual clock: seconds measured, seconds predicted.

`python -m benchmarks.loopback [--ranks 2 4] [--steps 40] [--compute 0.05] [--outage 10] [--tries 2] [--kernel]` trains
the digits workload over gloo, each process with one thread, across an emulated link that takes four computing times for
a dense gradient, and two for the latency. A worker's turn, from the moment that nothing is waited for any more until
its packet is handed over, is padded with sleep to the computing time, so that it holds on a machine that does other
things as well; *turn* is what it took at the median, and *work* how much of it was none of the sleep. The prediction is
a simulated transport's, with the computing time that was asked for; the second ratio is to one with the median turn.
Both begin with the first iteration and end when the last message is applied; of several tries the fastest counts, since
whatever else a machine does only adds. An outage is a link without any bandwidth for so many seconds, waited for and
beyond a timeout. With `--kernel` each rank lies in a network namespace whose token bucket makes the link slow, real TCP
goes through it, and only the latency is added in user space; every rank then sends to every other over its own link,
which is what is predicted. That needs root, and has no outage.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor

from acclimate.fields import wide_area
from acclimate.fields.wide_area.replicas.gradients import digest
from acclimate.fields.wide_area.workloads import WORKLOADS, Workload
from acclimate.links.kernel import KernelNetwork
from acclimate.links.piecewise import Piecewise
from acclimate.models.threads import one_thread
from acclimate.wire.transport import Transport

DENSE, AWAY = 4.0, 2.0
RATE = 0.05
FAST = 1e9
"""bit/s, while links are not slow."""
FIXED = [(staleness, ratio) for ratio in (1.0, 0.1, 0.02) for staleness in range(4)]
TRACES = ("constant", "drop")


@dataclass(frozen=True, slots=True)
class Case:
    """`staleness` None stands for DeCo; `outage` seconds without bandwidth from the first second on, where above 0."""

    ranks: int
    trace: str
    staleness: int | None
    ratio: float
    steps: int
    compute: float
    outage: float = 0.0
    timeout: float = 60.0
    kernel: bool = False

    def policy(self) -> Any:
        if self.staleness is None:
            return wide_area.DeCo(most_stale=8)
        return wide_area.Setting(self.staleness, self.ratio)

    def link(self, dense_bits: float) -> tuple[wide_area.Trace, float]:
        rate = dense_bits / (DENSE * self.compute)
        if self.outage:
            trace = Piecewise([(1.0, rate), (self.outage, 0.0), (math.inf, rate)])
        elif self.trace == "drop":
            trace = wide_area.step_drop(rate, at=1.0, share=0.3, seconds=2.0)
        else:
            trace = wide_area.constant(rate)
        return trace, AWAY * self.compute

    def named(self) -> str:
        return "DeCo" if self.staleness is None else f"staleness {self.staleness}, {100 * self.ratio:g} %"


def prepared(case: Case, task: Workload, rank: int, transport: Transport) -> tuple[Any, Callable[[], Tensor]]:
    """A worker's optimiser, and what computes its next gradient."""
    model, draw = task.build(0), task.batches(rank, case.ranks, "iid", 0)
    training = wide_area.DeCoSGD(
        model.parameters(), lambda parameters: torch.optim.SGD(parameters, RATE), transport=transport,
        policy=case.policy(),
    )  # fmt: skip

    def compute() -> Tensor:
        loss = task.loss(model, draw())
        loss.backward()
        return loss

    return training, compute


def dense_bits(task: Workload) -> float:
    return 32.0 * sum(each.numel() for each in task.build(0).parameters())


def predicted(case: Case, task: Workload, compute: float) -> float:
    """Seconds of the virtual clock."""
    trace, latency = case.link(dense_bits(task))
    topology = "gather" if case.kernel else "server"
    transports = wide_area.world(case.ranks, [(trace, latency)], topology=topology)
    workers = [prepared(case, task, rank, transport) for rank, transport in enumerate(transports)]
    for _ in range(case.steps):
        for (training, gradient), transport in zip(workers, transports, strict=True):
            training.begin()
            gradient()
            transport.compute(compute)
            training.end()
    for training, _ in workers:
        training.drain()
    return transports[0].now()


def measured(case: Case, task: Workload, rank: int, network: KernelNetwork | None) -> dict[str, Any]:
    """The same in real time, by one of the ranks."""
    inner = wide_area.GlooTransport(timeout=60.0)
    warm, gradient = prepared(case, task, rank, inner)  # the first steps of a process take seconds
    for _ in range(2):
        warm.begin()
        gradient()
        warm.end()
    warm.drain()
    dist.barrier()
    trace, latency = case.link(dense_bits(task))
    transport = (
        wide_area.EmulatedTransport(inner, trace, latency, timeout=case.timeout)
        if network is None
        else wide_area.LateTransport(inner, latency)
    )
    training, gradient = prepared(case, task, rank, transport)
    with nullcontext() if network is None else network.follow(trace, rank):
        found = run(case, training, gradient)
    dist.barrier()
    inner.close()
    return found


def run(case: Case, training: Any, gradient: Callable[[], Tensor]) -> dict[str, Any]:
    """Seconds of all iterations and what filled them."""
    begun, turns, work, ending = time.monotonic(), list[float](), list[float](), 0.0
    found: dict[str, Any] = {}
    try:
        for _ in range(case.steps):
            ready = time.monotonic() - training.stalled
            training.begin()
            ready += training.stalled
            gradient()
            work.append(time.monotonic() - ready + ending)
            time.sleep(max(0.0, ready + case.compute - ending - time.monotonic()))
            before = time.monotonic()
            training.end()
            ending = time.monotonic() - before
            turns.append(time.monotonic() - ready)
        training.drain()
        found["digest"] = str(digest([each for group in training.base.param_groups for each in group["params"]]))
    except wide_area.LinkFault as fault:
        found["fault"] = f"{type(fault).__name__}: {fault}"
    found |= {"seconds": time.monotonic() - begun, "stalled": training.stalled}
    found |= {"turn": statistics.median(turns), "longest": max(turns), "work": statistics.median(work)}
    found["setting"] = [training.setting.staleness, training.setting.ratio]
    return found


def enter(cases: list[Case], rank: int, folder: Path, network: KernelNetwork | None) -> None:
    """One process; goes through all cases of as many ranks."""
    torch.set_num_threads(1)
    if network is not None:
        network.enter(rank)
        os.environ["GLOO_SOCKET_IFNAME"] = network.device
    limit = timedelta(seconds=300)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=cases[0].ranks, timeout=limit)
    task = WORKLOADS["digits"]()
    for number, case in enumerate(cases):
        found = measured(case, task, rank, network)
        path = folder / f"{number}-{rank}.json"
        path.with_suffix(".new").write_text(json.dumps(found))
        path.with_suffix(".new").rename(path)
    dist.destroy_process_group()


def launched(cases: list[Case], told: Callable[[Case, list[Any]], None], tries: int = 1) -> None:
    """Tell what every rank found in the fastest try, case by case."""
    cases = [case for case in cases for _ in range(tries)]
    found: list[list[Any]] = []
    context = multiprocessing.get_context("spawn")
    size = cases[0].ranks
    with TemporaryDirectory() as name, KernelNetwork(size, FAST) if cases[0].kernel else nullcontext() as network:
        folder, ranks = Path(name), range(size)
        processes = [context.Process(target=enter, args=(cases, rank, folder, network)) for rank in ranks]
        for process in processes:
            process.start()
        for number, case in enumerate(cases):
            files = [folder / f"{number}-{rank}.json" for rank in ranks]
            while not all(file.is_file() for file in files):
                if any(process.exitcode for process in processes):
                    raise RuntimeError("a process ended with an error; see above.")
                time.sleep(0.1)
            found.append([json.loads(file.read_text()) for file in files])
            if len(found) == tries:
                told(case, min(found, key=_slowest))
                found.clear()
        for process in processes:
            process.join()


def _slowest(found: list[Any]) -> float:
    return max(each["seconds"] for each in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--compute", type=float, default=0.05, help="seconds of a turn")
    parser.add_argument("--outage", type=float, default=10.0, help="seconds; 0 leaves it out")
    parser.add_argument("--tries", type=int, default=2)
    parser.add_argument("--kernel", action="store_true", help="links of network namespaces, as root")
    options = parser.parse_args()
    console, task = Console(width=150), WORKLOADS["digits"]()
    table = Table(title=f"digits, {options.steps} iterations of {1e3 * options.compute:g} ms")
    head = (
        "ranks",
        "link",
        "setting",
        "measured s",
        "predicted s",
        "ratio",
        "own: turn ms",
        "work ms",
        "ratio",
        "same",
    )
    for column in head:
        table.add_column(column, justify="left" if column in ("link", "setting") else "right")
    ratios: list[float] = []

    def told(case: Case, found: list[Any]) -> None:
        seconds = _slowest(found)
        turn, work = (max(each[name] for each in found) for name in ("turn", "work"))
        with one_thread():
            expected, owned = predicted(case, task, case.compute), predicted(case, task, turn)
        ratios.append(seconds / expected)
        same = "yes" if len({each.get("digest") for each in found}) == 1 and "fault" not in found[0] else "no"
        row = [case.ranks, f"out for {case.outage:g} s" if case.outage else case.trace, case.named(), f"{seconds:.2f}",
               f"{expected:.2f}", f"{seconds / expected:.3f}", f"{1e3 * turn:.1f}", f"{1e3 * work:.1f}",
               f"{seconds / owned:.3f}", same]  # fmt: skip
        table.add_row(*map(str, row))
        console.print(*row)

    def cut(case: Case, found: list[Any]) -> None:
        for rank, each in enumerate(found):
            console.print(f"rank {rank}, outage of {case.outage:g} s, timeout {case.timeout:g} s: "
                          f"after {each['seconds']:.1f} s {each.get('fault', 'no fault')}")  # fmt: skip

    with one_thread():
        for ranks in options.ranks:
            given = (options.steps, options.compute)
            every = itertools.product(TRACES, [*FIXED, (None, 1.0)])
            cases = [Case(ranks, trace, *setting, *given, kernel=options.kernel) for trace, setting in every]
            launched(cases, told, options.tries)
            if options.outage and not options.kernel:
                launched([Case(ranks, "constant", 1, 0.1, *given, options.outage)], told)
                launched([Case(ranks, "constant", 1, 0.1, *given, options.outage, options.outage / 5)], cut)
    console.print(table)
    within = sum(abs(ratio - 1) <= 0.15 for ratio in ratios)
    console.print(f"within 15 %: {within} of {len(ratios)}; median ratio {statistics.median(ratios):.3f}, "
                  f"from {min(ratios):.3f} to {max(ratios):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
