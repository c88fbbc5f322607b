"""What docs/auto.md says is run, and the words of the plan that it explains are those that auto has."""

from __future__ import annotations

import re
from pathlib import Path

from acclimate.methods.auto import Auto

PAGE = (Path(__file__).parents[2] / "docs" / "auto.md").read_text("utf-8")


def test_the_example_runs(capsys):
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    exec(compile(source, "auto.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert "nothing has told yet whether labels cluster" in lines[0]
    (said,) = re.findall(r"from a batch of (\d+) rows or more", PAGE)
    assert int(said) == Auto().least
