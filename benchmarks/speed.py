"""What adapting costs, as multiples of F: one inference forward of the same batch.

`python -m benchmarks.speed [--rounds 15] [--batch 200]` runs all arms in turn, round after round, in one
process, and prints the median over rounds of each arm's time over F's time in the same round. The bounds
beside them are the counted passes: a forward that keeps a graph counts 1 F, a backward through the
normalisation parameters 1 F, one through all weights 2 F. No guard but in two lines, which tell the
difference that the default guard makes in the same round, once it has come to trust. Snapshot and reset
are shares of F; memory is what autograd keeps for backward at its peak, measured and predicted from two
smaller batches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

import acclimate
from acclimate.core.method import Method
from acclimate.methods.palm import PALM
from acclimate.models import cifar10_resnet20, source_model
from acclimate.streams import open_stream
from benchmarks.timing import in_turn, median_and_quartiles

WATCHED = ("bn", "tent")
TRUSTED = 10
GOALS = {"frozen": 1.02, "tent": 2.3, "palm, no view": 4.5, "palm": 7.0, "snapshot": 0.01, "reset": 0.01}
ADDED = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="count processor time: for machines that are shared")
    parser.add_argument("--plain-allocator", action="store_true", help="leave the C library's allocator as it is")
    parser.add_argument("--channels-last", action="store_true", help="give the bare model in channels_last too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.plain_allocator:
        acclimate.keep_freed_memory()
    net, x, what = _model_and_batch(options.batch)
    if options.channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)

    plain: dict[str, str | Method] = {
        **{name: name for name in ("source", "bn", "bn:ema", "tent", "rdumb")},
        "palm, no view": PALM(consistency=0),
        "palm": "palm",
    }
    methods = {name: acclimate.adapt(net, method, guard=None) for name, method in plain.items()}
    watched = {name: acclimate.adapt(net, name, guard="default") for name in WATCHED}
    for adapted in watched.values():
        for _ in range(TRUSTED):
            adapted(x)  # until trusted: where the source answers is a forward more
    frozen = methods["source"]
    arms: dict[str, Callable[[], object]] = {"F": lambda: _forward(net, x), "frozen": lambda: _frozen(frozen, x)}
    arms |= {name: (lambda adapted=adapted: adapted(x)) for name, adapted in methods.items()}
    arms |= {f"{name}, guard": (lambda adapted=adapted: adapted(x)) for name, adapted in watched.items()}
    palm = methods["palm"]
    arms["snapshot"] = lambda: palm.snapshot("benchmark")
    arms["reset"] = lambda: palm.state.table.restart()

    clock = time.process_time if options.cpu_time else time.perf_counter
    times = in_turn(arms, options.rounds, clock)
    inference = statistics.median(times["F"])
    console = Console()
    title = f"ResNet-20 on {what}, batch {options.batch}, {options.threads} threads, F = {inference * 1e3:.1f} ms"
    table = Table(title=title)
    for column in ("arm", "x F", "quartiles", "goal", "passes", "kept MB", "predicted"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for name, taken in times.items():
        ratios = [each / base for each, base in zip(taken, times["F"], strict=True)]
        middle, quartiles = median_and_quartiles(ratios)
        passes = kept = predicted = ""
        if name in methods:
            adapted = methods[name]
            cost, memory = adapted.method.cost(), adapted.memory(x)
            passes = f"{cost.forwards:g} + {cost.backwards:g}"
            kept, predicted = f"{(memory.saved or 0) / 1e6:.1f}", f"{(memory.predicted or 0) / 1e6:.1f}"
        bare = name.removesuffix(", guard")
        if bare in watched and bare != name:
            ratios = [(one - other) / base for one, other, base in zip(taken, times[bare], times["F"], strict=True)]
            more, spread = median_and_quartiles(ratios)
            report = watched[bare].last
            assert report is not None and report.guard is not None and not report.guard.held
            passes = f"+ {report.guard.forwards:g}"
            table.add_row(f"{bare}, what the guard adds", f"{more:.3f}", spread, f"{ADDED:g}", passes, "", "")
            continue
        goal = f"{GOALS[name]:g}" if name in GOALS else ""
        table.add_row(name, f"{middle:.3f}", quartiles, goal, passes, kept, predicted)
    console.print(table)


def _model_and_batch(size: int) -> tuple[torch.nn.Module, torch.Tensor, str]:
    """The shared source model on noisy CIFAR-10; random weights and images where it is not at hand.

    With random weights PALM selects all tensors, its most expensive case.
    """
    try:
        batch = next(iter(open_stream("cifar10:continual", size=size, batch_size=size)))
        return source_model("cifar10"), batch.images, "CIFAR-10 gaussian_noise"
    except FileNotFoundError:
        generator = torch.Generator().manual_seed(0)
        return cifar10_resnet20(), torch.rand(size, 3, 32, 32, generator=generator), "random images, random weights"


@torch.no_grad()
def _forward(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net(x)


def _frozen(adapted: acclimate.Adapted, x: torch.Tensor) -> torch.Tensor:
    with adapted.frozen():
        return adapted(x)


if __name__ == "__main__":
    main()
