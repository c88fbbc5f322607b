"""Write the measured section of docs/segmentation.md and its figure.

`python docs/make_segmentation.py` writes them from the rows in docs/measured/camvid; `--run` first runs what is missing
(about an hour on one core; it may be interrupted and goes on).
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.segmentation import Comparison, reproduce_camvid
from acclimate.fields.segmentation.lineup import ROWS
from acclimate.fields.segmentation.reproduction import shown_camvid

DOCS = Path(__file__).parent
MEASURED = DOCS / "measured"
PAGE = DOCS / "segmentation.md"
SIZE = 20


def rows() -> dict[str, list[Comparison]]:
    """What is finished, by label and seed."""
    found = defaultdict[str, list[Comparison]](list)
    for path in sorted((MEASURED / "camvid").glob("*.json")):
        comparison = Comparison.load(path)
        label = next(iter(comparison.configs))
        if any(other.seed == comparison.seed for other in found[label]):
            raise SystemExit(f"{path} is one of two rows {label!r}; remove the one of older settings.")
        found[label].append(comparison)
    return found


def main(*, run: bool) -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        made = Path(folder)
        if run:
            shutil.copytree(MEASURED / "camvid", made / "camvid", dirs_exist_ok=True)
            reproduce_camvid(made, size=SIZE)
            shutil.copytree(made / "camvid", MEASURED / "camvid", dirs_exist_ok=True)
        markdown, _ = write_all(made, "", "", [shown_camvid(ROWS, rows(), {})])
        text = re.sub(r"^.*?\n## [^\n]*\n", "", markdown.read_text(encoding="utf-8"), count=1, flags=re.S)
        for picture in re.findall(r"\(figures/(.+?)\)", text):
            shutil.copyfile(made / "figures" / picture, DOCS / "figures" / picture)
    block = f"<!-- measured -->\n{text.strip()}\n<!-- /measured -->"
    fresh = re.sub(r"<!-- measured -->.*<!-- /measured -->", lambda _: block, PAGE.read_text("utf-8"), flags=re.S)
    PAGE.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main(run="--run" in sys.argv[1:])
