"""What memory policies save and cost: bytes that backward holds at its peak, what the process takes, time of a step.

`python -m benchmarks.memory [--rounds 7] [--batch 200]`: the same model, batch and loss in one process. *Held* is the
peak of what autograd keeps (unique storages, probes included), *x stock* that over what it keeps as PyTorch does, in
the same step, *predicted* how far the prediction from smaller batches was off. *Allocated* is the highest that torch's
allocator handed out during a step above what was there before; *process* by how much the memory of a fresh process that
makes three such steps grows at its peak (Linux). *Time* is the median over rounds of a step's time over that of the
same step with "stock", one after the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import acclimate
from acclimate import Method
from acclimate.anatomy import everything
from acclimate.memory.device import profiled
from acclimate.methods.surgeon import Surgeon
from acclimate.methods.tent import Tent
from acclimate.models import source_model
from acclimate.models.transformer import VisionTransformer
from acclimate.streams import open_stream


@dataclass(frozen=True)
class Case:
    what: str
    build: Callable[[], Method]
    policies: tuple[str, ...]
    images: bool = True


CASES = (
    Case("norms (Tent)", lambda: Tent(), ("stock", "exact", "quantized:8-bit", "quantized:4-bit")),
    Case(
        "all weights (entropy)",
        lambda: Tent(select=everything, learning_rate=2.2e-5),
        ("stock", "exact", "checkpointed", "quantized:8-bit", "quantized:4-bit", "surgeon", "surgeon:faithful"),
    ),
    Case(
        "all weights (SURGEON's loss)",
        lambda: Surgeon(memory="stock"),
        ("stock", "quantized:4-bit", "surgeon"),
    ),
    Case(
        "layer norms of a ViT (Tent)", lambda: Tent(), ("stock", "exact", "quantized:8-bit", "quantized:4-bit"), False
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--alone", nargs=2, metavar=("CASE", "POLICY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        case, policy = CASES[int(options.alone[0])], options.alone[1]
        net, x = model_and_batch(case, options.batch)
        model = acclimate.adapt(net, case.build(), memory=policy, guard=None)
        model(x[:2])
        before = start_peak()
        for _ in range(3):
            model(x)
        sys.stdout.write(f"{peak() - before}\n")
        return
    table = Table(title=f"ResNet-20 and a ViT (width 192, 6 blocks, 64 tokens), batch {options.batch}")
    columns = (
        "learns",
        "memory",
        "held MB",
        "x stock",
        "predicted",
        "allocated MB",
        "process MB",
        "time x",
        "quartiles",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:2] else "right")
    for case in CASES:
        for row in measure(case, options.batch, options.rounds, options.threads):
            table.add_row(*row)
    Console().print(table)


def model_and_batch(case: Case, batch: int) -> tuple[nn.Module, Tensor]:
    stream = open_stream("cifar10:continual", size=batch, batch_size=batch)
    vit = VisionTransformer(10, 32, patch=4, width=192, depth=6, heads=3).eval()
    return source_model("cifar10") if case.images else vit, next(iter(stream)).images


def measure(case: Case, batch: int, rounds: int, threads: int) -> list[list[str]]:
    net, x = model_and_batch(case, batch)
    acclimate.keep_freed_memory()
    models = {policy: acclimate.adapt(net, case.build(), memory=policy, guard=None) for policy in case.policies}
    times: dict[str, list[float]] = {policy: [] for policy in models}
    for number in range(rounds + 1):
        for policy, model in models.items():
            start = time.perf_counter()
            model(x)
            if number:
                times[policy].append(time.perf_counter() - start)
    rows: list[list[str]] = []
    for policy, model in models.items():
        with profiled():
            memory = model.memory(x)
        assert memory.saved is not None and memory.stock is not None and memory.predicted is not None
        ratios = [own / base for own, base in zip(times[policy], times["stock"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append(
            [
                case.what if policy == "stock" else "",
                policy,
                f"{memory.saved / 1e6:.1f}",
                f"{memory.saved / memory.stock:.3f}",
                f"{memory.predicted / memory.saved - 1:+.1%}",
                "" if memory.device is None else f"{memory.device / 1e6:.0f}",
                f"{process_peak(case, policy, batch, threads) / 1e6:.0f}",
                f"{middle:.2f}",
                f"{low:.2f}..{high:.2f}",
            ]
        )
    return rows


def start_peak() -> int:
    """Forget the process's peak (Linux); gives the bytes that it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def process_peak(case: Case, policy: str, batch: int, threads: int) -> int:
    """The most memory that a process of its own had; freed blocks go back to the system at once there."""
    own = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
    arguments = ["--batch", str(batch), "--threads", str(threads), "--alone", str(CASES.index(case)), policy]
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    done = subprocess.run(command, env=os.environ | own, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
