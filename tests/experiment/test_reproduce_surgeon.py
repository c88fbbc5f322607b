"""SURGEON's comparison: published numbers, who stands in it, what depends on what, what is written."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from acclimate.experiment.reproduce import (
    BENCHMARKS,
    Outcome,
    Request,
    Site,
    Trial,
    choose_parts,
    published,
    published_surgeon,
    reproduce,
)
from acclimate.experiment.reproduce.contenders import contenders
from acclimate.experiment.reproduce.schedule import Done
from acclimate.memory import SurgeonSavings

REQUEST = Request(benchmark=BENCHMARKS["cifar10"], model="net", weights="f00d", size=40)
ROWS = [
    "source", "bn", "tent", "tent, exact", "tent, 4-bit", "full tuning", "gradient checkpointing",
    "full tuning, 8-bit", "full tuning, 4-bit", "surgeon", "surgeon, no G", "surgeon, no M",
    "static pruning at equal bytes", "surgeon + CSS", "surgeon + CSS + CR", "surgeon-bn", "surgeon-bn + CSS",
    "surgeon-bn + CSS + CR", "surgeon, as released",
]  # fmt: skip


class MadeUp:
    """Outcomes from the seed and the memory policy, at once."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.ran: list[Trial] = []

    def work(self, trials: Sequence[Trial], site: Site) -> Iterator[Done]:
        for trial in trials:
            self.ran.append(trial)
            if self.broken and self.broken in trial.label:
                yield trial, "it broke"
                continue
            name = trial.identity()["method"].get("memory", {"name": "stock"})["name"]
            held = {"stock": 400, "exact": 200, "surgeon": 80 + trial.seed}.get(name, 60) * 1_000_000
            held = 0 if trial.method.startswith(("source", "bn")) else trial.equal_bytes or held
            yield trial, Outcome(
                segments=[[corruption, 5] for corruption in published.CORRUPTIONS],
                errors=[20.0 + trial.seed + (name == "surgeon") for _ in published.CORRUPTIONS],
                facts={
                    "milliseconds": 10.0 if held else 4.0, "held": [held - 1000, held + 1000] if held else [0, 0],
                    "stock": [400_000_000] * 2 if held else [0, 0], "device": [None, None], "cache": [2.0, None],
                },
            )  # fmt: skip


def do(folder: Path, crew: MadeUp | None, request: Request = REQUEST):
    return reproduce(
        choose_parts(paper="surgeon"), request, Site(model=None), folder, crew=crew, title="SURGEON and memory"
    )


def table(folder: Path) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in csv.DictReader((folder / "tables/table-memory.csv").read_text().splitlines())}


# -- published numbers -----------------------------------------------------------------------------------------


def test_published_rows_have_their_published_mean() -> None:
    for key in ("cifar10-c", "cifar100-c"):
        for name, (*errors, mean) in published_surgeon.CONTINUAL[key].items():
            known = [error for error in errors if error is not None]
            assert len(known) == len(published.CORRUPTIONS) == 15
            # each number is rounded by up to 0.05, and so is the mean
            assert mean is not None and abs(fmean(known) - mean) <= 0.1 + 1e-9, (key, name)


def test_tables_and_ablation_agree_where_they_show_the_same() -> None:
    for key, rows in published_surgeon.IMPORTANCE.items():
        for name in ("full_tuning", "surgeon"):
            assert published_surgeon.CONTINUAL[key][name][-1] == rows[name][0]
    assert published_surgeon.published_numbers("cifar10-c", "surgeon") == (18.1, 325.0)
    assert published_surgeon.published_numbers("cifar10-c", "no_gradient") == (20.3, 1568.0)
    assert published_surgeon.published_numbers("cifar100-c", "no_memory") == (32.8, 1108.0)
    assert published_surgeon.published_numbers("imagenet-c", "surgeon-bn+css+cr") == (53.9, 1834.0)
    assert published_surgeon.published_numbers("cifar10-c", "surgeon-bn") == (17.8, None)
    assert published_surgeon.published_numbers("", "surgeon") == (None, None)


# -- who stands in it ------------------------------------------------------------------------------------------


def test_the_rows_are_those_of_the_comparison() -> None:
    assert [each.name for each in contenders(REQUEST)] == ROWS
    assert [each.name for each in contenders(replace(REQUEST, methods=("tent",)))] == ROWS[2:5]
    assert [each.name for each in contenders(replace(REQUEST, methods=("bn", "cotta")))] == ["bn", "cotta"]
    assert not {"tent", "tent, exact"} & {each.name for each in contenders(replace(REQUEST, without=("tent",)))}


@pytest.mark.parametrize("benchmark", ["cifar10", "cifar100c", "imagenetc"])
def test_full_tuning_and_surgeon_differ_in_what_is_kept_and_nothing_else(benchmark: str, tmp_path: Path) -> None:
    request = replace(REQUEST, benchmark=BENCHMARKS[benchmark])
    do(tmp_path, crew := MadeUp(), request)
    built = {}
    for each in contenders(request):
        for trial in crew.ran:
            if trial.method == each.method and dict(trial.changes) == dict(each.changes) and not trial.equal_bytes:
                built[each.name] = trial.build().config()
    full = built["full tuning"]
    for name in ("surgeon", "surgeon, no G", "surgeon, no M", "full tuning, 4-bit"):
        memory = built[name]["memory"]
        assert {**built[name], "memory": None} == {**full, "memory": None}
        assert memory.get("gradient_importance", True) == (name != "surgeon, no G")
        assert memory.get("memory_importance", True) == (name != "surgeon, no M")
    assert (full["certain"], full["consistency"], full["layers"]) == (False, 0.0, "all")
    rate = {"cifar10": (2.2e-5, 1e-3), "cifar100c": (1e-5, 3e-4), "imagenetc": (5e-6, 2e-4)}[benchmark]
    assert (full["learning_rate"], built["surgeon-bn"]["learning_rate"]) == rate
    assert built["surgeon-bn"]["layers"] == "norms"
    assert (built["surgeon + CSS"]["certain"], built["surgeon + CSS"]["consistency"]) == (True, 0.0)
    assert (built["surgeon-bn + CSS + CR"]["certain"], built["surgeon-bn + CSS + CR"]["consistency"]) == (True, 0.01)


def test_static_pruning_waits_for_surgeons_bytes_under_each_seed(tmp_path: Path) -> None:
    do(tmp_path, crew := MadeUp(), replace(REQUEST, seeds=(0, 3)))
    static = [trial for trial in crew.ran if trial.equal_bytes is not None]
    assert [(trial.seed, trial.equal_bytes) for trial in static] == [(0, 80_000_000), (3, 83_000_000)]
    assert crew.ran[-2:] == static and all(trial.measured for trial in crew.ran)
    assert all(isinstance(trial.build().memory, SurgeonSavings) for trial in static)
    do(tmp_path, again := MadeUp(), replace(REQUEST, seeds=(0, 3)))
    assert again.ran == []


def test_what_cannot_run_is_told_with_what_hangs_on_it(tmp_path: Path) -> None:
    _, _, failed = do(tmp_path, MadeUp(broken="memory=surgeon(gradient_importance=False)"))
    assert list(failed.values()) == ["it broke"]
    text = (tmp_path / "reproduce.md").read_text()
    assert "surgeon, no G did not run: it broke" in text and "static pruning at equal bytes did not run" not in text

    class NoSurgeon(MadeUp):
        def work(self, trials: Sequence[Trial], site: Site) -> Iterator[Done]:
            for trial, outcome in super().work(trials, site):
                whole = trial.build().memory == SurgeonSavings() and trial.build().config()["certain"] is False
                yield trial, "no bytes" if whole else outcome

    do(tmp_path / "other", NoSurgeon())
    text = (tmp_path / "other/reproduce.md").read_text()
    assert "static pruning at equal bytes did not run: surgeon did not run, whose bytes it is to hold." in text


def test_a_policy_that_there_is_not_has_a_row_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acclimate.core.memory import policies

    known = {name: policy for name, policy in policies.classes().items() if name != "checkpointed"}
    monkeypatch.setattr(policies, "classes", lambda: known)
    do(tmp_path, crew := MadeUp())
    assert not any("checkpointed" in trial.label for trial in crew.ran)
    assert table(tmp_path)["gradient checkpointing"]["mean"] == ""
    assert "gradient checkpointing did not run: there is no memory policy 'checkpointed'" in (
        (tmp_path / "reproduce.md").read_text()
    )


# -- what is shown ---------------------------------------------------------------------------------------------


def test_error_and_bytes_side_by_side(tmp_path: Path) -> None:
    do(tmp_path, MadeUp(), replace(REQUEST, seeds=(0, 4)))
    rows = table(tmp_path)
    assert list(rows) == ROWS
    surgeon = rows["surgeon"]
    assert float(surgeon["mean"]) == pytest.approx(23.0) and float(surgeon["± seeds"]) == pytest.approx(8**0.5)
    assert surgeon["held, MB"] == "82.00" and surgeon["of stock"] == "0.205" and surgeon["published"] == "18.1"
    assert surgeon["published cache, MiB"] == "325.0" and float(surgeon["cache, MiB"]) == 2.0
    assert surgeon["allocator, MB"] == "" and float(surgeon["time, bn = 1"]) == 2.5
    assert rows["source"]["held, MB"] == "0.00" and rows["source"]["of stock"] == ""
    assert rows["static pruning at equal bytes"]["held, MB"] == "82.00"
    text = (tmp_path / "reproduce.md").read_text()
    assert "surgeon holds 0.205 of full tuning's bytes, +1.00 points of error" in text
    assert "tent, exact holds 0.500 of tent's bytes, +0.00 points of error" in text
    assert re.search(r"^\| \*surgeon, published\* \| 27\.0 \| 22\.8 \|", text, re.M)


def test_the_figure_has_a_point_for_each_complete_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import acclimate.experiment.reproduce.holdings as module

    drawn = []
    draw = module.against_peak
    monkeypatch.setattr(module, "against_peak", lambda points: drawn.append(points) or draw(points))
    do(tmp_path, MadeUp(broken="tent (memory=exact)"))
    names = [point.label for point in drawn[-1]]
    there = [row for row, cells in table(tmp_path).items() if cells["mean"]]
    assert names == there and "tent, exact" not in names and len(names) >= 16
    assert {point.label: point.peak for point in drawn[-1]}["tent"] == 400_000_000
    assert (tmp_path / "figures/figure-peak.png").stat().st_size > 10_000


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_it_is_written_from_nothing_and_from_everything(benchmark: str, tmp_path: Path) -> None:
    request = replace(REQUEST, benchmark=BENCHMARKS[benchmark])
    for crew in (None, MadeUp()):
        markdown, html, _ = do(tmp_path, crew, request)
        assert "error in percent and what backward holds" in markdown.read_text()
    assert html.read_text().count("data:image/png;base64,") == 1
    names = [row["name"] for row in json.loads((tmp_path / "tables/table-memory.json").read_text())["rows"]]
    assert names == ROWS
