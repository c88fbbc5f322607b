"""Measure, and write docs/cost.md: `python docs/make_cost.py`, on a machine that does nothing else meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUNS = {
    "With batch norm": ["--threads", "1"],
    "With group norm, where only selected rows are run again": ["--threads", "1", "--norm", "group"],
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
  cost 5 F.
* MEMO answers one image after the other, so it is measured on batches of 8. Small forwards are dear: F is a batch of 8 too.
"""


def main() -> None:
    parts = [HEAD.rstrip() + "\n"]
    for title, options in RUNS.items():
        command = ["-m", "benchmarks.cost", "--rounds", "5", *options]
        environment = {**os.environ, "COLUMNS": "110"}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        told = "".join(f"{line}\n" for line in done.stderr.splitlines() if "left out" in line)
        parts.append(f"## {title}\n\n```\n$ python {' '.join(command)}\n{told}{done.stdout.rstrip()}\n```\n")
    (ROOT / "docs" / "cost.md").write_text("\n".join([*parts, TAIL]), encoding="utf-8")


if __name__ == "__main__":
    main()
