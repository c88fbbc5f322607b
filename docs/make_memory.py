"""Measure, and write the table in docs/memory.md: `python docs/make_memory.py`, on a machine that does nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from make_cost import measured

PAGE = Path(__file__).parent / "memory.md"


def main(*options: str) -> None:
    block = f"<!-- measured -->\n{measured('benchmarks.memory', list(options))}<!-- /measured -->"
    text = PAGE.read_text(encoding="utf-8")
    fresh = re.sub(r"<!-- measured -->.*<!-- /measured -->", lambda _: block, text, flags=re.S)
    PAGE.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["--threads", "1", "--rounds", "9"]))
