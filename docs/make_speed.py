"""Measure, and write docs/speed.md: `python docs/make_speed.py`, on a machine that does nothing else meanwhile.

`python docs/make_speed.py benchmarks.mixing` measures only what that module does; other sections keep their text.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUNS: dict[str, tuple[str, list[str]]] = {
    "As it comes: the model in torch's default layout": ("benchmarks.speed", []),
    "One thread": ("benchmarks.speed", ["--threads", "1"]),
    "The bare model in channels last too": ("benchmarks.speed", ["--channels-last"]),
    "The C library's allocator left as it is": ("benchmarks.speed", ["--plain-allocator"]),
    "Methods for mixing domains": ("benchmarks.mixing", ["--threads", "1"]),
}
HEAD = """# Speed and memory

Written by `python docs/make_speed.py`, which runs `python -m benchmarks.speed` as shown. F is one inference forward of
the same batch through the bare model, measured in the same round; figures are medians over rounds of the ratio in each
round, with quartiles. No guard. *Passes* are counted (and proved by the conformance tests). *Kept MB* is the peak of what
autograd keeps for backward during a step, *predicted* the same extrapolated from batches of two and four.

What theory says: a forward that keeps a graph is 1 F, a backward to normalisation weights about 1 F (the gradient has
to pass every layer), a backward to all weights about 2 F. So Tent is bound by 2 F, PALM without view by 1 + 2 + 2 = 5 F,
less what its second backward need not compute: the tensors that do not move. With the view it is 5 + 1 + 2 = 8 F, less
the same twice. Below that, ratios come from layout: steps run in channels last, F does not unless the bare model is
given so.
"""
TAIL = """## Reading it

* The goals are 1.02 F frozen, 2.3 F for Tent, 4.5 F and 7 F for PALM without and with its view, and 1 % of a forward for
  snapshot and reset. On two threads with the default layout they are met, PALM with its view just so: its quartiles lie
  on both sides. On one thread PALM with its view is a few percent over.
* With the bare model in channels last, F itself is faster by about a fifth, and the same steps cost more of it. There the
  goals of Tent and PALM are not met (nor, by a percent, that of frozen answers, whose check of the input costs the same as
  before); the arithmetic above says why 5 F and 8 F less the skipped tensors is what is left.
* FIND's groups in every layer may cost 0.7 F on top of `bn`, in some of them 0.35 F; MoETTA's step 1.3 and NCTTA's 1.15 of
  Tent's. Over the time of `bn` are differences of two ratios in the same round. On the transformer NCTTA runs only the
  sure rows again, so where few are sure it is cheaper than Tent.
* With glibc's default allocator PALM pays for handing 600 MB back to the system and faulting them in again at each step.
  `acclimate.keep_freed_memory()` at the start of a process avoids that; the command line calls it.
* Tried for PALM: gradients of unselected tensors left out in stage 2 (kept), channels last in forward and
  backward with the gradients of pooling and shortcuts put in order (kept, a fifth of the time), views in planes
  instead of channels last (kept, half the view's cost). Rejecting large tensors early from part of their gradient
  in stage 1 was considered and dropped: on this network rejected tensors score 1.2 to 1.8 times the threshold, so
  most of the gradient is needed to decide.
"""


def kept() -> dict[str, str]:
    """The sections of the page as it is, by title."""
    parts = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8").split("\n## ")[1:]
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}


def measured(title: str, module: str, options: list[str]) -> str:
    command = ["-m", module, "--rounds", "15", *options]
    environment = {**os.environ, "COLUMNS": "110"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return f"## {title}\n\n```\n$ python {' '.join(command)}\n{done.stdout.rstrip()}\n```\n"


def main(wanted: list[str]) -> None:
    old = kept()
    parts = [
        old[title] if wanted and title in old and module not in wanted else measured(title, module, options)
        for title, (module, options) in RUNS.items()
    ]
    (ROOT / "docs" / "speed.md").write_text("\n".join([HEAD, *parts, TAIL]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
