"""The page's example of one's own rows, on files made in Criteo's layout."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[4] / "docs" / "recommendation.md"


def test_the_example_of_ones_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    days: list[list[int]] = []
    for name, rows in (("day_0.gz", 300), ("day_1.gz", 200)):
        labels = random.integers(0, 2, rows).tolist()
        numbers, names = random.integers(0, 9, (rows, 13)), random.integers(0, 4, (rows, 26))
        lines = [
            "\t".join([str(label), *map(str, row), *(f"v{value:x}" for value in texts)])
            for label, row, texts in zip(labels, numbers, names, strict=True)
        ]
        Path(name).write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
        days.append(labels)
    section = PAGE.read_text("utf-8").partition("### Your own rows")[2]
    found = re.search(r"^```python\n(.*?)^```", section, re.M | re.S)
    assert found is not None
    scope: dict[str, object] = {}
    exec(compile(found[1], "recommendation.md", "exec"), scope)
    every = days[0] + days[1]
    parts = [part.labels.tolist() for part in scope["split"]]  # type: ignore[attr-defined]
    assert parts == [every[:400], every[400:450], every[450:]]
    assert Path("runs/criteo/vocabulary.json").is_file()
