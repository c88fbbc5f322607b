"""What docs/drift.md says is run, and its numbers follow from the formulas."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from acclimate.guard.detectors.adwin import Adwin
from acclimate.guard.detectors.page_hinkley import PageHinkley
from acclimate.guard.martingale import ReferenceMartingale, StreamMartingale

PAGE = (Path(__file__).parents[2] / "docs" / "drift.md").read_text("utf-8")


def test_the_example_runs(capsys):
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    exec(compile(source, "drift.md", "exec"), {})
    assert re.search(r"^batch 2\d: mean True", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("kind", [PageHinkley, Adwin, ReferenceMartingale, StreamMartingale])
def test_sizes(kind):
    (size,) = re.findall(rf"^\| `{kind.__name__}` .*\| (\d+) \|$", PAGE, re.M)
    assert int(size) == kind().size


def test_smallest_shifts():
    test = ReferenceMartingale(alpha=0.01)
    assert f"{test.slack(500):.3f} with 500, {test.slack(2000):.3f} with 2,000" in PAGE
