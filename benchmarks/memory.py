"""What memory policies save and cost: bytes that backward holds at its peak, time of a step, error on a stream.

`python -m benchmarks.memory [--rounds 7] [--batch 200] [--errors SIZE]`: the same model, batch and loss in one process.
*Held* is the peak of what autograd keeps (unique storages, probes included) over what it keeps as PyTorch does, in the
same step. *Time* is the median over rounds of a step's time over that of the same step with "stock", one after the
other. With `--errors` every row also answers the continual stream of so many images a corruption.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import acclimate
from acclimate import Method
from acclimate.anatomy import everything
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
        ("stock", "exact", "quantized:8-bit", "quantized:4-bit", "surgeon"),
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
    parser.add_argument("--errors", type=int, default=0, metavar="SIZE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    acclimate.keep_freed_memory()
    stream = open_stream("cifar10:continual", size=options.batch, batch_size=options.batch)
    x = next(iter(stream)).images
    table = Table(title=f"ResNet-20 and a ViT (width 192, 6 blocks, 64 tokens), batch {options.batch}")
    for column in ("learns", "memory", "held MB", "x stock", "predicted", "time x", "quartiles", "error %"):
        table.add_column(column, justify="left" if column in ("learns", "memory") else "right")
    net = source_model("cifar10")
    vit = VisionTransformer(10, 32, patch=4, width=192, depth=6, heads=3).eval()
    for case in CASES:
        for row in measure(case, net if case.images else vit, x, options.rounds, options.errors):
            table.add_row(*row)
    Console().print(table)


def measure(case: Case, net: nn.Module, x: Tensor, rounds: int, size: int) -> list[list[str]]:
    models = {policy: acclimate.adapt(net, case.build(), memory=policy) for policy in case.policies}
    times: dict[str, list[float]] = {policy: [] for policy in models}
    for number in range(rounds + 1):
        for policy, model in models.items():
            start = time.perf_counter()
            model(x)
            if number:
                times[policy].append(time.perf_counter() - start)
    rows: list[list[str]] = []
    for policy, model in models.items():
        memory = model.memory(x)
        assert memory.saved is not None and memory.stock is not None and memory.predicted is not None
        ratios = [own / base for own, base in zip(times[policy], times["stock"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        error = f"{stream_error(net, case.build(), policy, size):.2f}" if size and case.images else ""
        rows.append(
            [
                case.what if policy == "stock" else "",
                policy,
                f"{memory.saved / 1e6:.1f}",
                f"{memory.saved / memory.stock:.3f}",
                f"{memory.predicted / memory.saved - 1:+.1%}",
                f"{middle:.2f}",
                f"{low:.2f}..{high:.2f}",
                error,
            ]
        )
    return rows


def stream_error(net: nn.Module, method: Method, policy: str, size: int) -> float:
    model = acclimate.adapt(net, method, memory=policy)
    wrong = total = 0
    for batch in open_stream("cifar10:continual", size=size, batch_size=200):
        wrong += int((model(batch.images).argmax(1) != batch.labels).sum())
        total += len(batch.labels)
    return 100 * wrong / total


if __name__ == "__main__":
    main()
