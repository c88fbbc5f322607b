"""Measure, and write docs/cost.md: `python docs/make_cost.py`, on a machine that does nothing else meanwhile.

`python docs/make_cost.py 2` measures the second section anew and keeps the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUNS = {
    "With batch norm": ["--threads", "1", "--rounds", "5"],
    "With group norm, where only selected rows are run again": [
        *("tent", "eta", "eata", "sar", "deyo", "roid"),
        *("--threads", "1", "--norm", "group", "--rounds", "5"),
    ],
}
HEAD = """# What each method costs

Written by `python docs/make_cost.py`, which runs `python -m benchmarks.cost` as shown. F is one inference forward of the
batch through the bare model.

* *Bound* is what the method's card states: multiply-adds of its dearest step as a multiple of F. A test counts them on a
  small network and holds every step to 1.15 times the bound, whatever the batch.
* *Counted* are the multiply-adds of the dearer of two steps on this network. A step that selects few rows, or whose gate
  stays closed, is below its bound; the first steps of RoTTA and NOTE fill their banks.
* *Measured* is the median over rounds of a step's time over the time of F beside it, with quartiles.
* *Kept* is the peak of what autograd holds for backward, *state* what the method carries from batch to batch.

"""
TAIL = """## Reading it

* What is not in multiply-adds is in the measured column: views of images (CoTTA, DSS, AdaContrast, MEMO, PALM, LAW, ROID),
  elementwise work on all weights (teachers, restoration, optimisers: little here, where weights are few and activations
  many), bookkeeping of banks on the host.
* CoTTA and DSS are shown with `threshold=1`, so with their gate open: 32 views of each batch. With the gate closed they
  cost 5 F. On the CPU 256 rows of views share a forward: 1,024 overflow the caches (49 F), 400 took 1.2 times as long as
  200.
* NOTE, RoTTA and MEMO were at 2.85, 1.84 and 1.54 times their bounds while their normalisation took its statistics from
  `torch.var_mean`, which on the CPU takes twenty times as long as the fused one. Tried: fused batch norm with a graph in
  its weight, group and instance norm on a view, blocked passes, one autograd function for statistics alone (kept: two
  passes forward, one backward) and for statistics and normalisation. EcoTTA was at 1.39: the gradient of a mean came
  back in the default layout, and every layer below reordered it; the sum over the count keeps it.
* SURGEON's own cost beyond its bound is packing and unpacking; see memory.md. Where F is fast, what is not multiply-adds
  weighs more: on a machine with F at 161 ms Tent measured 2.3 where it measures 1.95 with F at 236 ms.
* With random weights, as in the table of group norm, no answer is sure, so ETA, EATA, SAR and DeYO select no row and run
  none again: 1 F. With a share p selected the tests count `1 + 2p` forwards exactly.
* MEMO answers one image after the other, so it is measured on batches of 8. Small forwards are dear: F is a batch of 8 too.
"""


def measured(module: str, options: list[str]) -> str:
    """A benchmark's command and what it says, as a block of code."""
    command = ["-m", module, *options]
    environment = {**os.environ, "COLUMNS": "118"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    told = "".join(f"{line}\n" for line in done.stderr.splitlines() if "left out" in line)
    return f"```\n$ python {' '.join(command)}\n{told}{done.stdout.rstrip()}\n```\n"


def main(*renewed: str) -> None:
    parts = [HEAD.rstrip() + "\n"]
    page = ROOT / "docs" / "cost.md"
    kept = page.read_text(encoding="utf-8") if renewed else ""
    for number, (title, options) in enumerate(RUNS.items(), 1):
        if renewed and str(number) not in renewed:
            start = kept.index(f"## {title}\n")
            parts.append(kept[start : kept.index("\n## ", start) + 1].rstrip() + "\n")
            continue
        parts.append(f"## {title}\n\n{measured('benchmarks.cost', options)}")
    page.write_text("\n".join([*parts, TAIL]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
