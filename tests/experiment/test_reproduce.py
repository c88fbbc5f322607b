"""A paper's tables: trials and their identity, rounds, what is kept, what is written."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isclose
from pathlib import Path
from statistics import fmean

import pytest

from acclimate.experiment.reproduce import (
    BENCHMARKS,
    PAPERS,
    Outcome,
    Request,
    Site,
    Store,
    Trial,
    choose_parts,
    published,
    reproduce,
)
from acclimate.experiment.reproduce.importance import by_layer
from acclimate.experiment.reproduce.optimizers import RATES
from acclimate.experiment.reproduce.part import average
from acclimate.experiment.reproduce.schedule import Done

REQUEST = Request(benchmark=BENCHMARKS["cifar10"], model="net", weights="f00d", size=40, gradual_size=20)


class MadeUp:
    """Outcomes from a formula, at once: errors as `score` says, one importance for each segment."""

    def __init__(self, score=lambda trial: 20.0, *, stop: int | None = None, broken: str = "") -> None:
        self.score, self.stop, self.broken = score, stop, broken
        self.ran: list[Trial] = []

    def work(self, trials: Sequence[Trial], site: Site) -> Iterator[Done]:
        for trial in trials:
            if self.stop == len(self.ran):
                raise KeyboardInterrupt
            self.ran.append(trial)
            if self.broken and trial.method.startswith(self.broken):
                yield trial, "it broke"
                continue
            names = trial.stream.corruptions or published.CORRUPTIONS
            levels = (1, 2, 3, 4, 5, 4, 3, 2, 1) if trial.stream.spec.endswith("gradual") else (5,)
            segments = [[name, level] for name in names for level in levels]
            yield trial, Outcome(
                segments=segments,
                errors=[self.score(trial) + 0.1 * level for _, level in segments],
                values={"parameter_share": [0.25] * len(segments)},
                importance={"conv.weight": [0.5] * len(segments), "bn.weight": [0.25] * len(segments)},
                facts={
                    "forwards": 2.0, "backwards": 2.0, "adapted": 10, "parameters": 40,
                    "dimensions": {"conv.weight": 4, "bn.weight": 1},
                },
            )  # fmt: skip


def do(folder: Path, crew: MadeUp | None, parts=None, request: Request = REQUEST):
    return reproduce(parts or choose_parts(), request, Site(model=None), folder, crew=crew, title="Tables")


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


# -- published numbers -----------------------------------------------------------------------------------------


def test_published_rows_have_their_published_mean() -> None:
    for rows in published.CONTINUAL.values():
        for name, (*errors, mean) in rows.items():
            assert len(errors) == len(published.CORRUPTIONS) == 15
            if None not in errors:
                assert abs(fmean(errors) - mean) < 0.1, name


def test_published_tables_agree_where_they_show_the_same() -> None:
    for key, rows in published.CONTINUAL.items():
        palm = rows["palm"][-1]
        assert published.OPTIMIZERS[key]["palm"] == palm
        assert published.PSEUDO_LABEL[key]["uniform"] == palm
        assert published.LAMBDA[key][0.01] == palm


# -- identity --------------------------------------------------------------------------------------------------


def test_a_trial_is_its_settings_not_its_name() -> None:
    (named,) = REQUEST.trials("palm")
    assert named.method == "palm:cifar10-c"
    (same,) = REQUEST.trials("palm:reference", alpha=0.5)
    assert same.key == named.key
    others = [
        *REQUEST.trials("palm", alpha=0.4),
        *REQUEST.trials("palm", "gradual"),
        *REQUEST.trials("palm", "validation"),
        *replace(REQUEST, seeds=(1,)).trials("palm"),
        *replace(REQUEST, size=41).trials("palm"),
        *replace(REQUEST, batch_size=20).trials("palm"),
        *replace(REQUEST, weights="beef").trials("palm"),
        *replace(REQUEST, compute="cuda amp").trials("palm"),
    ]
    keys = [trial.key for trial in others]
    assert len({*keys, named.key}) == 9
    assert all(re.fullmatch(r"palm-[0-9a-f]{20}", key) for key in keys)


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no setting alfa"):
        REQUEST.trials("palm", alfa=0.4)[0].key  # noqa: B018


def test_validation_sees_other_images_and_other_corruptions() -> None:
    for trial in REQUEST.trials("palm", "validation"):
        assert trial.stream.split == "train"
        assert not set(trial.stream.corruptions) & set(published.CORRUPTIONS)
        assert len(trial.stream.corruptions) == 16
    (full,) = replace(REQUEST, size=None).trials("palm", "validation")
    assert full.stream.size == 10_000, "no more than the test stream has"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"seeds": (1, 1)}, "once"), ({"seeds": ()}, "at least one"), ({"size": 0}, "size is 0"),
     ({"batch_size": -1}, "batch size is -1"), ({"methods": ("tnet",)}, "tent"), ({"methods": ("bn", "bn")}, "once"),
     ({"validation_rounds": 0}, "validation rounds is 0")],
)  # fmt: skip
def test_a_senseless_request_is_refused(wrong: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(REQUEST, **wrong)


# -- rounds ----------------------------------------------------------------------------------------------------


def test_tables_share_trials(tmp_path: Path) -> None:
    crew = MadeUp()
    request = replace(REQUEST, methods=("palm", "bn"))
    do(tmp_path, crew, choose_parts(("1", "5", "7", "8"), ("2", "3")), request)
    keys = [trial.key for trial in crew.ran]
    assert len(keys) == len(set(keys))
    # bn and palm; the other score; five other lambdas; ten other alphas; six other temperatures
    assert len(keys) == 2 + 1 + 5 + 10 + 6
    do(tmp_path, again := MadeUp(), choose_parts(("1",)), request)
    assert again.ran == []


def test_each_optimiser_runs_at_the_rate_that_was_best_in_validation(tmp_path: Path) -> None:
    best = {"lars": 0.3, "prodigy": 10.0, "adafactor": 1e-4}

    def score(trial: Trial) -> float:
        changed = dict(trial.changes)
        if "optimizer" not in changed:
            return 15.0
        right = changed["learning_rate"] == best[changed["optimizer"]]
        # On the test stream another rate would look better, and must not matter.
        return (10.0 if right else 11.0) if trial.stream.split == "train" else (30.0 if right else 5.0)

    crew = MadeUp(score)
    do(tmp_path, crew, choose_parts(("6",)))
    tested = [dict(trial.changes) for trial in crew.ran if trial.stream.split == "test" and trial.changes]
    assert {each["optimizer"]: each["learning_rate"] for each in tested} == best
    assert len(tested) == 3
    named = {row["name"]: row for row in json.loads((tmp_path / "tables/table-6.json").read_text())["rows"]}
    assert named["lars"]["mean"] == pytest.approx(30.5) and named["lars"]["published"] == 18.9
    assert named["lars"]["rate"] == "0.3" and named["palm"]["mean"] == pytest.approx(15.5)


def test_a_rate_that_cannot_run_does_not_stop_the_choice(tmp_path: Path) -> None:
    class Missing(MadeUp):
        def work(self, trials, site):
            for trial, outcome in super().work(trials, site):
                broken = dict(trial.changes).get("optimizer") == "prodigy"
                yield trial, "not installed" if broken else outcome

    _, _, failed = do(tmp_path, Missing(), choose_parts(("6",)))
    assert len(failed) == len(RATES["prodigy"])
    text = (tmp_path / "reproduce.md").read_text()
    assert "did not run: not installed" in text
    named = {row["name"]: row for row in json.loads((tmp_path / "tables/table-6.json").read_text())["rows"]}
    assert named["prodigy"]["mean"] is None and named["lars"]["mean"] is not None


def test_what_failed_is_told_and_tried_again(tmp_path: Path) -> None:
    parts, request = choose_parts(("1",)), replace(REQUEST, methods=("source", "bn", "tent"))
    _, _, failed = do(tmp_path, MadeUp(broken="bn"), parts, request)
    assert list(failed.values()) == ["it broke"]
    text = (tmp_path / "reproduce.md").read_text()
    assert "bn did not run: it broke" in text and re.search(r"^\| bn \| - \|", text, re.M)
    _, _, failed = do(tmp_path, second := MadeUp(), parts, request)
    assert failed == {} and [trial.method for trial in second.ran] == ["bn"]


def test_an_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    parts, request = choose_parts(("1",)), replace(REQUEST, methods=("source", "bn", "tent"))
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, MadeUp(stop=2), parts, request)
    assert len(Store(tmp_path)) == 2
    assert re.search(r"^\| tent \| - \|", (tmp_path / "reproduce.md").read_text(), re.M)
    do(tmp_path, second := MadeUp(), parts, request)
    assert [trial.method for trial in second.ran] == ["tent"]
    assert len(Store(tmp_path)) == 3


def test_a_broken_file_is_run_again(tmp_path: Path) -> None:
    parts, request = choose_parts(("1",)), replace(REQUEST, methods=("source", "bn"))
    do(tmp_path, MadeUp(), parts, request)
    (broken,) = (tmp_path / "trials").glob("bn-*.json")
    broken.write_text(broken.read_text()[:-20])
    do(tmp_path, second := MadeUp(), parts, request)
    assert [trial.method for trial in second.ran] == ["bn"]


# -- what is shown ---------------------------------------------------------------------------------------------


def test_means_over_segments_and_seeds(tmp_path: Path) -> None:
    request = replace(REQUEST, seeds=(0, 4), methods=("tent",))
    do(tmp_path, MadeUp(lambda trial: 20.0 + trial.seed), choose_parts(("1", "4")), request)
    (row,) = [r for r in rows(tmp_path / "tables/table-4.csv") if r["kind"] == "measured"]
    # severities 1 to 4 twice and 5 once: their mean is 25/9; seeds add 0 and 4
    assert float(row["mean"]) == pytest.approx(22.0 + 0.1 * 25 / 9)
    assert float(row["mean at 5"]) == pytest.approx(22.5)
    assert float(row["published"]) == 20.4
    assert float(row["± seeds"]) == pytest.approx(8**0.5)
    measured, printed = rows(tmp_path / "tables/table-1.csv")
    assert isclose(float(measured["mean"]), 22.5) and isclose(float(measured["fog"]), 22.5)
    assert printed["mean"] == "20.7" and printed["library"] == "20.0" and printed["jpeg"] == "24.9"


def test_one_seed_missing_leaves_the_cell_empty(tmp_path: Path) -> None:
    request = replace(REQUEST, seeds=(0, 1), methods=("tent",))
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, MadeUp(stop=1), choose_parts(("1",)), request)
    measured, _ = rows(tmp_path / "tables/table-1.csv")
    assert measured["mean"] == ""


def test_a_number_that_one_seed_lacks_is_no_mean() -> None:
    outcomes = [Outcome(segments=[["fog", 5]], errors=[1.0], values={"share": [value]}) for value in (0.5, None)]
    assert average(outcomes[:1], lambda outcome: outcome.mean_value("share")) == 0.5
    assert average(outcomes, lambda outcome: outcome.mean_value("share")) is None


def test_layers_are_means_over_their_tensors() -> None:
    outcome = Outcome(
        segments=[["fog", 5], ["snow", 5]],
        errors=[1.0, 2.0],
        importance={"a.weight": [0.0, 0.2], "a.bias": [0.0, 0.4], "b.weight": [0.0, 1.0]},
    )
    assert by_layer([outcome], "snow") == pytest.approx({"a": 0.3, "b": 1.0})


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_everything_is_written_from_everything_and_from_nothing(benchmark: str, tmp_path: Path) -> None:
    request = replace(REQUEST, benchmark=BENCHMARKS[benchmark])
    for crew in (None, MadeUp()):
        markdown, html, failed = do(tmp_path, crew, request=request)
        assert not failed
        text, page = markdown.read_text(), html.read_text()
        for number in ("Table 4", "Table 5", "Table 6", "Table 7", "Table 8", "code against paper", "Figure 2"):
            assert number in text and number in page
        assert f"Table {request.benchmark.continual}:" in text
    assert len(list((tmp_path / "figures").glob("*.png"))) == 3
    assert "figures/" not in page and "http" not in page.replace("data:", "")
    assert page.count("data:image/png;base64,") == 3
    assert text.count("Protocol: net (f00d)") == len(choose_parts())


def test_methods_can_be_left_out(tmp_path: Path) -> None:
    do(tmp_path, crew := MadeUp(), choose_parts(("1", "4")), replace(REQUEST, without=("memo", "tent")))
    ran = {trial.method.partition(":")[0] for trial in crew.ran}
    assert {"palm", "bn", "rdumb"} <= ran and not ran & {"memo", "tent"}
    assert "Left out: memo, tent." in (tmp_path / "reproduce.md").read_text()


def test_parts_are_chosen_by_number() -> None:
    palm = PAPERS["palm"]
    assert len(choose_parts()) == len({*palm.tables.values(), *palm.figures.values()})
    assert [part.key for part in choose_parts(("5", "1"))] == ["table-1", "table-5"]
    assert [part.key for part in choose_parts(None, ("2",))] == ["figure-2"]
    assert [part.key for part in choose_parts(("3",))] == ["table-1"]
    assert [part.key for part in choose_parts(paper="surgeon")] == ["table-memory", "figure-peak"]
    with pytest.raises(ValueError, match=r"no table '1' of surgeon .* There are: memory"):
        choose_parts(("1",), paper="surgeon")
