"""What methods for mixing domains cost beside their plain relatives.

`python -m benchmarks.mixing [--rounds 15] [--batches 64 200] [--models cifar10-resnet20 cifar10-vit]` runs all arms in
turn, round after round, in one process. Of normalisations it prints the time over that of `bn`, in F (one inference
forward of the same batch in the same round); of methods the ratio to Tent's step. Medians over rounds, with quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import acclimate
from acclimate.core.method import methods
from acclimate.core.normalization import normalizations
from acclimate.models import RECIPES, load_model
from acclimate.streams import open_stream
from benchmarks.timing import in_turn, median_and_quartiles

STATISTICS = ("alpha", "instance_aware", "find", "find-selective", "find-probe")
BESIDE_TENT = ("moetta", "nctta", "datta", "sar", "deyo")
GOALS = {"find": "0.70 F", "find-selective": "0.35 F", "find-probe": "0.35 F", "moetta": "1.3 x", "nctta": "1.15 x"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 200])
    parser.add_argument("--models", nargs="+", default=["cifar10-resnet20", "cifar10-vit"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="count processor time: for machines that are shared")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    acclimate.keep_freed_memory()
    clock = time.process_time if options.cpu_time else time.perf_counter
    for name in options.models:
        net, what = _model(name)
        for batch in options.batches:
            x = _images(batch)
            Console().print(_measured(net, x, f"{name}{what}, batch {batch}", options.rounds, clock))


def _measured(net: nn.Module, x: Tensor, title: str, rounds: int, clock: Callable[[], float]) -> Table:
    arms: dict[str, Callable[[], object]] = {"F": lambda: _forward(net, x)}
    normed = any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    beside_bn = [name for name in STATISTICS if normed and name in normalizations.classes()]
    beside_tent = [name for name in BESIDE_TENT if name in methods.classes() and (normed or name != "datta")]
    built = {
        "tent": acclimate.adapt(net, "tent", guard=None),
        **{name: acclimate.adapt(net, name, guard=None) for name in beside_tent},
    }
    if normed:
        built["bn"] = acclimate.adapt(net, "bn", guard=None)
        built |= {name: acclimate.adapt(net, "bn", normalization=name, guard=None) for name in beside_bn}
    arms |= {name: (lambda adapted=adapted: adapted(x)) for name, adapted in built.items()}
    times = in_turn(arms, rounds, clock)
    table = Table(title=f"{title}, {torch.get_num_threads()} threads, F = {statistics.median(times['F']) * 1e3:.1f} ms")
    for column in ("arm", "x F", "what", "figure", "quartiles", "goal"):
        table.add_column(column, justify="left" if column in ("arm", "what") else "right")
    for name in arms:
        ratio, _ = median_and_quartiles(_over(times, name))
        told = ("", "", "")
        if name in beside_bn:
            more = [a - b for a, b in zip(_over(times, name), _over(times, "bn"), strict=True)]
            middle, quartiles = median_and_quartiles(more)
            told = ("over bn", f"{middle:.2f} F", quartiles)
        elif name in beside_tent:
            middle, quartiles = median_and_quartiles(_over(times, name, "tent"))
            told = ("of tent's step", f"{middle:.2f} x", quartiles)
        table.add_row(name, f"{ratio:.2f}", *told, GOALS.get(name, ""))
    return table


def _over(times: Mapping[str, Sequence[float]], name: str, base: str = "F") -> list[float]:
    return [mine / other for mine, other in zip(times[name], times[base], strict=True)]


def _model(name: str) -> tuple[nn.Module, str]:
    try:
        return load_model(name), ""
    except FileNotFoundError:
        return RECIPES[name].build(), " (random weights)"


def _images(batch: int) -> Tensor:
    try:
        return next(iter(open_stream("cifar10:continual", size=batch, batch_size=batch))).images
    except FileNotFoundError:
        return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _forward(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)


if __name__ == "__main__":
    main()
