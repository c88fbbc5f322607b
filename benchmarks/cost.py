"""What a step of each method costs: F multiples, milliseconds, bytes; F is one inference forward of the batch.

`python -m benchmarks.cost [METHOD ...] [--rounds 9] [--batch 200]` takes one method after the other through the same
batches, in one process, with F timed again beside every step. *Counted* are multiply-adds of the step over those of F;
*bound* is what the method's card states; *measured* is the median over rounds of the step's time over that of F. A step
that selects less, or whose gate stays closed, is below its bound. *Kept* is the peak of what autograd holds during a
step, *state* everything the method carries from batch to batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import acclimate
from acclimate.core.method import Method, methods
from acclimate.models import cifar10_resnet20, source_model
from acclimate.streams import open_stream

SOURCE_IMAGES = 400
"""For methods that measure the source first; what they find does not change what a step costs."""

ONE_BY_ONE = 8
"""The batch of methods that take one sample at a time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="names or name:preset; all registered methods by default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--norm", choices=("batch", "group"), default="batch", help="group: random weights")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    acclimate.keep_freed_memory()
    net, batches, source, what = _model_and_batches(options.norm, options.batch, options.rounds + 2)
    adapted: dict[str, acclimate.Adapted] = {}
    for name in options.methods or methods.classes():
        try:
            adapted[name] = acclimate.adapt(net, prepared(methods.build(name), source), guard=None)
        except ValueError as error:
            print(f"{name} left out: {error}", file=sys.stderr)
    inference = [_timed(lambda x=x: forward(net, x)) for x in batches]
    table = Table(title=f"{what}, batch {options.batch}, {options.threads} threads")
    for column in ("method", "bound F", "counted F", "measured F", "quartiles", "ms", "kept MB", "state MB"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, model in adapted.items():
        one_by_one = model.method.cost().each == "sample"
        some = [x[:ONE_BY_ONE] for x in batches] if one_by_one else batches
        table.add_row(name, *measure(model, net, some, inference))
    table.caption = f"F = {statistics.median(inference[2:]) * 1e3:.1f} ms"
    Console().print(table)


def prepared(method: Method, source: tuple[Tensor, Tensor]) -> Method:
    """The method with source images, where it asks for them, and with its gate open, where it has one."""
    names = {field.name for field in dataclasses.fields(method)}
    changes: dict[str, object] = {"source": source} if "source" in names else {}
    changes |= {"threshold": 1.0} if {"copies", "threshold"} <= names else {}
    return dataclasses.replace(method, **changes)  # pyright: ignore[reportArgumentType]


def measure(model: acclimate.Adapted, net: nn.Module, batches: list[Tensor], inference: list[float]) -> list[str]:
    """Count and time one method on all batches; F is timed again beside each step."""
    ratios: list[float] = []
    times: list[float] = []
    counted = 0.0
    for number, x in enumerate(batches):
        if number < 2:  # the warm-up rounds are counted, not timed: counting slows a step
            counted = max(counted, multiply_adds(lambda x=x: model(x)) / multiply_adds(lambda x=x: forward(net, x)))
            continue
        taken = _timed(lambda x=x: model(x))
        inference[number] = base = _timed(lambda x=x: forward(net, x))
        ratios.append(taken / base)
        times.append(taken)
    low, middle, high = statistics.quantiles(ratios, n=4)
    cost, memory = model.method.cost(), model.memory(batches[0])
    return [
        f"{cost.bound:g}" if cost.bound else "",
        f"{counted:.2f}",
        f"{middle:.2f}",
        f"{low:.2f}..{high:.2f}",
        f"{statistics.median(times) * 1e3:.0f}",
        f"{(memory.saved or 0) / 1e6:.1f}",
        f"{sum(memory.state.values()) / 1e6:.2f}",
    ]


def multiply_adds(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@torch.no_grad()
def forward(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _model_and_batches(norm: str, size: int, count: int) -> tuple[nn.Module, list[Tensor], tuple[Tensor, Tensor], str]:
    """The shared source model on noisy CIFAR-10, random images and weights where those are not at hand."""
    generator = torch.Generator().manual_seed(0)
    net: nn.Module = cifar10_resnet20(norm="group" if norm == "group" else "batch")
    try:
        stream = open_stream("cifar10:continual", size=size * count, batch_size=size)
        batches = [batch.images for _, batch in zip(range(count), stream, strict=False)]
        clean = next(iter(open_stream("cifar10:clean", size=SOURCE_IMAGES, batch_size=SOURCE_IMAGES, split="train")))
        source, what = (clean.images, clean.labels), "ResNet-20 on CIFAR-10 gaussian_noise"
        net = net if norm == "group" else source_model("cifar10")
    except FileNotFoundError:
        images = torch.rand(SOURCE_IMAGES + size * count, 3, 32, 32, generator=generator)
        batches = list(images[SOURCE_IMAGES:].split(size))
        source = images[:SOURCE_IMAGES], torch.randint(0, 10, (SOURCE_IMAGES,), generator=generator)
        what = "ResNet-20 with random weights on random images"
    return net, batches, source, f"{what}, {norm} norm"


if __name__ == "__main__":
    main()
