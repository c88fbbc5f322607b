"""Each variant changes what it says, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.fields.wide_area.reproduction import ablations as module
from acclimate.fields.wide_area.reproduction.ablations import VARIANTS, ablations
from acclimate.fields.wide_area.reproduction.places import Place
from acclimate.fields.wide_area.reproduction.simulate import sgd, simulate
from acclimate.fields.wide_area.workloads import WORKLOADS

PLACE = Place(trace="sine", workers=2)


def test_variants_go_other_ways() -> None:
    workload = WORKLOADS["digits"]()
    courses = {
        name: simulate(workload, PLACE, VARIANTS[name], sgd(0.1), limit=160)
        for name in ("deco", "ratio-only", "every:100", "queues", "forgetful", "half")
    }
    assert max(stale for _, stale, _ in courses["ratio-only"].settings) == 1
    assert max(stale for _, stale, _ in courses["deco"].settings) > 1
    assert len(courses["every:100"].settings) < len(courses["deco"].settings)
    ends = {name: (round(each.curve[-1][0], 6), each.curve[-1][2]) for name, each in courses.items()}
    assert len(set(ends.values())) == len(ends)


def test_the_table_takes_the_better_step_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VARIANTS", {"deco": VARIANTS["deco"]})
    given = {"places": [PLACE], "seeds": (0,), "limit": 2000}
    both, one, other = (
        float(str(ablations(tmp_path, rates=rates, **given).grids[0].lines[0].cells[0]))  # type: ignore[arg-type]
        for rates in ((0.3, 0.1), (0.3,), (0.1,))
    )
    assert both == min(one, other) < max(one, other)
