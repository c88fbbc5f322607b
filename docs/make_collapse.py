"""Measure, and write the table and the figure of docs/collapse.md: `python docs/make_collapse.py`."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from acclimate.cli.app import launch

DOCS = Path(__file__).parent


def main() -> None:
    page = DOCS / "collapse.md"
    text = page.read_text(encoding="utf-8")
    command = next(line for line in text.splitlines() if line.startswith("acclimate inspect") and "cifar10" in line)
    with tempfile.TemporaryDirectory() as folder:
        if code := launch([*shlex.split(command)[1:], "--out", folder]):
            raise SystemExit(code)
        written = next(Path(folder).glob("*.md")).read_text(encoding="utf-8")
        shutil.copyfile(next(Path(folder).rglob("*.png")), DOCS / "figures" / "collapse.png")
    body = written[written.index("\n| |") + 1 :].rstrip()
    fresh = re.sub(
        r"(<!-- measured -->\n).*(\n<!-- /measured -->)", lambda m: m.group(1) + body + m.group(2), text, flags=re.S
    )
    page.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
