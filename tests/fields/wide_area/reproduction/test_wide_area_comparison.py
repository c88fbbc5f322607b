from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from acclimate.fields.wide_area.reproduction import reproduce_decosgd
from acclimate.fields.wide_area.reproduction.contenders import CONTENDERS
from acclimate.fields.wide_area.reproduction.places import TRACES, Place
from acclimate.fields.wide_area.reproduction.simulate import sgd, simulate
from acclimate.fields.wide_area.workloads import WORKLOADS

QUICK = Place(dense=8, away=2, workers=2)


def test_a_synchronous_course_is_plain_descent_and_takes_the_time_of_the_formula() -> None:
    task = WORKLOADS["digits"]()
    course = simulate(task, QUICK, CONTENDERS["dsgd"], sgd(0.1), limit=40)
    model = task.build(0)
    draws = [task.batches(rank, 2, "iid", 0) for rank in range(2)]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(39):  # the message of the last iteration is still on its way
        optimizer.zero_grad()
        sum(task.loss(model, draw()) for draw in draws).div(2).backward()  # type: ignore[union-attr]
        optimizer.step()
    assert course.curve[-1][1:] == (40, pytest.approx(task.score(model), abs=0.003))
    bits = 32 * 50826 + 8 * 32  # and a header
    each = QUICK.compute + bits / QUICK.bandwidth(32 * 50826) + QUICK.latency
    assert course.curve[-1][0] == pytest.approx(39 * each + QUICK.compute, rel=1e-6)
    assert course.bits == 40 * bits and course.stalled == pytest.approx(1 - 40 * 0.05 / course.curve[-1][0], rel=1e-6)


def test_the_rule_wastes_no_computing_time_where_the_network_is_known() -> None:
    course = simulate(WORKLOADS["digits"](), QUICK, CONTENDERS["deco:oracle"], sgd(0.1), limit=60)
    assert course.stalled < 0.02 and course.settings[0][1] == 3
    assert course.settings[0][2] == pytest.approx(1 / 8, rel=0.05)


@pytest.mark.parametrize("name", [name for name, each in CONTENDERS.items() if each.hook is None])
def test_every_contender_goes_some_way(name: str) -> None:
    task = WORKLOADS["digits"]()
    course = simulate(task, QUICK, CONTENDERS[name], sgd(0.05), limit=200)
    assert not course.diverged and course.curve[-1][2] > course.curve[0][2] + 0.1
    assert course.curve == sorted(course.curve)


def test_places_are_multiples_of_what_a_task_needs() -> None:
    place = Place(dense=4, away=3, compute=0.1)
    assert place.bandwidth(4e6) == pytest.approx(1e7) and place.latency == pytest.approx(0.3)
    for kind in TRACES:
        mean = Place(trace=kind, dense=4, compute=0.1).at_mean(4e6).bandwidth
        assert 0.6e7 < mean < 1.4e7
    for wrong in ({"trace": "flat"}, {"dense": 0}, {"away": -1}, {"workers": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Place(**wrong)  # type: ignore[arg-type]


def test_the_page_holds_what_the_trials_say_and_is_written_again_from_them(tmp_path: Path) -> None:
    told: list[str] = []
    settings = {
        "methods": ("dsgd", "static", "static:mean", "deco"), "seeds": (0,), "places": [QUICK], "limit": 60,
        "progress": lambda done, total, note: told.append(note),
    }  # fmt: skip
    pages = reproduce_decosgd(tmp_path, **settings)  # type: ignore[arg-type]
    assert all(page.is_file() for page in pages) and len(told) == 12
    with (tmp_path / "tables" / "digits-1.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert set(rows) == {CONTENDERS[name].title for name in settings["methods"]}
    assert all(row["learned"] == "0 of 1" and not row["seconds"] for row in rows.values())  # sixty are too few
    told.clear()
    reproduce_decosgd(tmp_path, **settings)  # type: ignore[arg-type]
    assert not told
    with pytest.raises(ValueError, match="method must be one of"):
        reproduce_decosgd(tmp_path, methods=("adam",))


def test_seeds_are_whole_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seeds must be a whole number of at least 0, found -1"):
        reproduce_decosgd(tmp_path, seeds=(0, -1))
