"""Members side by side in processes, against one after the other in this one: seconds to an answer.

`python -m benchmarks.panel [--rows 1000] [--rounds 100] [--model wukong]`: published sizes of Wukong on
Criteo's fields, random weights and ids. All arms in turn, in one run. With fewer cores than workers the answer cannot
be as fast as the slowest member alone; how many there are is printed. In the end a worker is killed while questions
come.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

import acclimate
from acclimate.fields.recommendation.merging.folder import save_merged
from acclimate.fields.recommendation.merging.merged import merge
from acclimate.fields.recommendation.models.registry import build
from acclimate.fields.recommendation.serving.panel import Panel
from benchmarks.timing import in_turn

FIELDS, VALUES = 39, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--model", default="wukong")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8])
    given = parser.parse_args()
    acclimate.keep_freed_memory()
    torch.set_num_threads(1)
    sizes = [VALUES] * FIELDS
    offsets = torch.arange(FIELDS) * VALUES
    ids = torch.randint(VALUES, (given.rows, FIELDS), generator=torch.Generator().manual_seed(0)) + offsets
    console = Console()
    table = Table(title=f"{given.model}, {given.rows} rows, {len(os.sched_getaffinity(0))} cores: milliseconds")
    for head in (
        "members",
        "one after the other",
        "panel, median",
        "panel, 95 %",
        "a member's own",
        "panel / member",
        "merging",
    ):
        table.add_column(head, justify="right")
    for count in given.members:
        model = merge([build(given.model, sizes, seed=seed) for seed in range(count)])
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            save_merged(model, folder)
            with Panel.of(folder, deadline=60) as panel:
                if not panel.ready(300):
                    raise RuntimeError("the workers did not start")
                torch.testing.assert_close(panel(ids).logits, model(ids), rtol=1e-4, atol=1e-5)
                times = in_turn({"turn": partial(model, ids), "panel": partial(panel, ids)}, given.rounds)
                own = statistics.median(panel.seen().members)
            stacked = torch.randn(count, given.rows)
            start = time.perf_counter()
            for _ in range(100):
                stacked.mean(0)
            merging = (time.perf_counter() - start) / 100
        late = statistics.quantiles(times["panel"], n=20)[-1]
        turn, side = statistics.median(times["turn"]), statistics.median(times["panel"])
        table.add_row(
            str(count), *(f"{1e3 * each:.2f}" for each in (turn, side, late, own)), f"{side / own:.2f}",
            f"{1e3 * merging:.3f}",
        )  # fmt: skip
    console.print(table)
    faults(ids, sizes, given.model, console)


def faults(ids: torch.Tensor, sizes: list[int], name: str, console: Console) -> None:
    """Four members; one process is killed while questions come, and the answers go on."""
    model = merge([build(name, sizes, seed=seed) for seed in range(4)])
    with tempfile.TemporaryDirectory() as folder:
        save_merged(model, folder)
        with Panel.of(folder, deadline=5) as panel:
            if not panel.ready(300):
                raise RuntimeError("the workers did not start")
            whole = panel(ids)
            panel.interrupt(2)
            seconds: list[float] = []
            start = time.perf_counter()
            without = 0
            while True:
                answer = panel(ids)
                seconds.append(answer.seconds)
                without += bool(answer.missing)
                if not answer.missing or time.perf_counter() - start > 120:
                    break
        console.print(
            f"one of four ended: {without} answers of three (median {1e3 * statistics.median(seconds):.0f} ms against "
            f"{1e3 * whole.seconds:.0f} ms), none failed, whole again after {time.perf_counter() - start:.1f} s"
        )


if __name__ == "__main__":
    main()
