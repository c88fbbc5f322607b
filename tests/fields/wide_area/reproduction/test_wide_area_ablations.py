"""Each variant changes what it says, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from acclimate.fields.wide_area.reproduction import ablations as module
from acclimate.fields.wide_area.reproduction.ablations import VARIANTS, ablations
from acclimate.fields.wide_area.reproduction.places import Place
from acclimate.fields.wide_area.reproduction.simulate import Course, sgd, simulate
from acclimate.fields.wide_area.reproduction.trials import Trial
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
    """Courses as they are kept, written by hand."""
    monkeypatch.setattr(module, "VARIANTS", {"deco": VARIANTS["deco"]})
    seconds = {(0.2, 0): 10.0, (0.2, 1): 30.0, (0.1, 0): 14.0, (0.1, 1): 15.0, (0.05, 0): 1.0, (0.05, 1): None}
    for (rate, seed), value in seconds.items():
        trial = Trial(workload="digits", place=PLACE, contender="deco", rate=rate, seed=seed)
        trial.path(tmp_path).parent.mkdir(exist_ok=True)
        trial.path(tmp_path).write_text(json.dumps(asdict(Course(seconds=value))))
    shown = ablations(tmp_path, places=[PLACE], rates=(0.2, 0.1, 0.05), seeds=(0, 1))
    assert shown.grids[0].lines[0].cells == ["14.5"]
    assert ablations(tmp_path, places=[PLACE], rates=(0.05,), seeds=(0, 1)).grids[0].lines[0].cells == [None]
