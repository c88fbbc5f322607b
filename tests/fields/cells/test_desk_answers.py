"""Answers, tables and the page: what they say of cells, of doubt and of files that cannot be read."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.fields.cells.classify.unsure import Threshold
from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.data.made_up import made_up
from acclimate.fields.cells.data.problems import Problem, Severity
from acclimate.fields.cells.desk.answering import Answers, answers, summary, troubles
from acclimate.fields.cells.desk.model import CellModel
from acclimate.fields.cells.desk.problems import Failed, Trouble, by_severity, told, write_problems
from acclimate.fields.cells.desk.report import report_html, write_report
from acclimate.fields.cells.desk.scoring import Share, scored
from acclimate.fields.cells.desk.showing import spread
from acclimate.fields.cells.desk.tables import check_suffix, write_answers, write_codes
from acclimate.fields.cells.desk.training import train
from acclimate.fields.cells.pictures.outlines import CELL, NUCLEUS, outlined
from acclimate.fields.cells.pictures.plane import UNNAMED, planes, projected
from acclimate.fields.cells.plan import Plan

torch.set_num_threads(1)


ROT = Failed("rot", "Nothing in 'rot' can be read.", (Problem("a.png", "is empty; left out", Severity.LEFT_OUT),))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CellModel:
    plan = Plan(size="unit", sides=1, method="none")
    plan = replace(plan, start=replace(plan.start, epochs=1), masks=replace(plan.masks, epochs=2))
    return train(list(made_up(40, 0, size=64).values()), plan, tmp_path_factory.mktemp("model"), error=0.3)


@pytest.fixture(scope="module")
def found(model: CellModel) -> list[Answers]:
    """Two new laboratories, one with three odd files."""
    first, second = made_up(24, 1, size=64).values()
    odd = (
        Problem(first.keys[0], "is grey-scale, repeated in three channels"),
        Problem("broken.png", "is not a readable image; left out"),
        Problem("slides", "is a folder of no class of the model; its pictures count as unknown"),
    )
    half = second.labels.clone()
    half[:12] = UNKNOWN
    labs = [replace(first, problems=odd), replace(second, labels=half)]
    return [answers(model, each) for each in labs]


def test_unsure_is_below_the_threshold_or_without_a_cell(model: CellModel, found: list[Answers]) -> None:
    middle = float(np.median(found[0].top))
    at = Threshold(middle, 0.05, 0.95, 1, 1, 0, 0.0)
    one = answers(replace(model, threshold=at), found[0].laboratory)
    empty = one.sight.empty.numpy()
    assert np.array_equal(one.unsure, (one.top < np.float32(middle)) | empty)
    assert 0 < one.unsure.sum() < 24
    none = answers(replace(model, threshold=replace(at, value=None)), found[0].laboratory)
    assert none.unsure.all()


def test_a_picture_of_one_colour_is_unsure_whatever_the_threshold(model: CellModel, found: list[Answers]) -> None:
    lab = found[0].laboratory
    images = lab.images.clone()
    images[3], images[7], images[11] = 200, torch.tensor([9, 99, 200])[:, None, None], 255
    images[11, 2, 5, 5] = 254
    lenient = replace(model, threshold=replace(model.threshold, value=0.0))
    one = answers(lenient, replace(lab, images=images))
    expected = one.sight.empty.numpy().copy()
    expected[[3, 7]] = True
    assert np.array_equal(one.unsure, expected)


def test_problems_are_listed_and_written_by_severity(found: list[Answers], tmp_path: Path) -> None:
    """A file that cannot be read comes before any number of missing masks."""
    usual = [Trouble("quito", Problem(f"{i}.png", "has no mask in quito", Severity.USUAL)) for i in range(9)]
    odd = [*usual, Trouble("quito", Problem("x.png", "is empty", Severity.LEFT_OUT)), *troubles(found, [ROT])]
    lines = told(odd, "here.csv")
    own = [line for line in lines if line.startswith("quito")]
    assert own[0] == "quito: x.png is empty" and own[-1] == "quito: and 5 more, all of them in here.csv"
    assert len(own) == 6 and by_severity(odd)[0].problem.severity == Severity.LEFT_OUT
    write_problems(tmp_path / "p.csv", odd)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(odd) and [row["severity"] for row in rows][-9:] == ["usual"] * 9
    assert rows[0] == {"laboratory": "quito", "picture": "x.png", "problem": "is empty", "severity": "left_out"}
    assert {"laboratory": "rot", "picture": "a.png", "problem": "is empty; left out", "severity": "left_out"} in rows


def test_a_picture_without_a_cell_is_unsure_and_named(model: CellModel, found: list[Answers]) -> None:
    one = found[0]
    empty = torch.zeros(24, dtype=torch.bool)
    empty[3] = True
    given = replace(one, sight=one.sight._replace(empty=empty))
    assert given.problems[-1].key == one.laboratory.keys[3] and "no cell" in given.problems[-1].what


def test_the_csv_has_a_line_for_each_picture(model: CellModel, found: list[Answers], tmp_path: Path) -> None:
    write_answers(found, model.classes, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 49 and [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    broken = next(row for row in rows if row["key"] == "broken.png")
    assert broken["problem"] == "is not a readable image; left out" and broken["laboratory"] == "made-up-1"
    assert {value for name, value in broken.items() if name not in ("key", "laboratory", "problem")} == {""}
    for one in found:
        for place, key in enumerate(one.laboratory.keys):
            row = next(row for row in rows if row["key"] == key)
            each = [float(row[f"p({name})"]) for name in model.classes]
            assert each == pytest.approx(one.probabilities[place].tolist(), abs=1e-6)
            assert row["class"] == model.classes[int(np.argmax(each))] and float(row["probability"]) == max(each)
            assert row["unsure"] == ("yes" if one.unsure[place] else "no")
    assert next(row for row in rows if row["key"] == "made-up-1/0000")["problem"].startswith("is grey-scale")


def test_codes_come_back_from_both_kinds_of_file(found: list[Answers], tmp_path: Path) -> None:
    labs = [each.laboratory for each in found]
    for name in ("c.npz", "c.csv"):
        write_codes(found, tmp_path / name, [ROT])
    with np.load(tmp_path / "c.npz", allow_pickle=False) as stored:
        codes, labels = stored["codes"], stored["labels"]
        assert codes.dtype == np.float32 and codes.shape == (48, 48)
        assert stored["keys"].tolist() == [key for lab in labs for key in lab.keys]
        assert labels.tolist() == torch.cat([lab.labels for lab in labs]).tolist()
        assert stored["classes"].tolist() == list(labs[0].classes)
        odd = dict(zip(stored["keys"].tolist(), stored["problems"].tolist(), strict=True))
        assert odd["made-up-1/0000"].startswith("is grey-scale") and len(odd) == 48
        assert stored["unread"].tolist() == [
            ["made-up-1", "broken.png", "is not a readable image; left out"],
            ["rot", "a.png", "is empty; left out"],
        ]
    with (tmp_path / "c.csv").open(newline="", encoding="utf-8") as file:
        *rows, broken, empty = list(csv.reader(file))[1:]
    assert broken == ["broken.png", "made-up-1", "", "is not a readable image; left out", *[""] * 48]
    assert empty[:4] == ["a.png", "rot", "", "is empty; left out"]
    assert np.array_equal(np.array([row[4:] for row in rows], dtype=np.float32), codes)
    assert [row[3] for row in rows] == list(odd.values())
    assert [row[2] for row in rows] == ["" if label < 0 else labs[0].classes[label] for label in labels]
    written = (tmp_path / "c.npz").read_bytes()
    write_codes(found, tmp_path / "c.npz", [ROT])
    assert (tmp_path / "c.npz").read_bytes() == written


def test_the_summary_names_what_is_unsure_and_unreadable(model: CellModel, found: list[Answers]) -> None:
    first, *rest = summary(found, model)
    unsure = sum(int(each.unsure.sum()) for each in found)
    assert first.startswith(f"48 cells, {unsure} of them unsure")
    assert rest[0] == "1 picture without an answer, since the file could not be read: broken.png"
    assert summary(found, model, [ROT])[1] == ROT.why
    codes = summary([answers(model, found[0].laboratory.take(torch.arange(9)))], model, codes=True)
    assert (
        codes[0] == "9 cells."
        and codes[1].startswith("1 picture without a code")
        and codes[-1].startswith("made-up-1 has 9 ")
    )
    assert not any("answer" in line or "unsure" in line for line in codes)
    sure = replace(model, threshold=replace(model.threshold, value=0.0))
    few, enough = (answers(sure, found[0].laboratory.take(torch.arange(count))) for count in (19, 20))
    assert few.unsure.all() and not enough.unsure[~enough.sight.empty.numpy()].any()
    assert any("has 19 pictures" in line for line in summary([few], sure))
    assert not any("mixed classes" in line for line in summary([enough], sure))


def test_scores_leave_out_what_the_classifier_was_fitted_on(model: CellModel, found: list[Answers]) -> None:
    own = answers(model, made_up(40, 0, size=64)["made-up-1"])
    again = scored([own], model)
    assert again is not None and again.fresh
    assert again.cells + again.familiar == 40 and 0 < again.cells == len(model.held_out & _digests(own.laboratory))
    new = scored(found, model)
    assert new is not None and (new.cells, new.familiar) == (36, 0)
    assert [share.cells for share in new.recall] == [9, 9, 9, 9]
    true = np.concatenate([each.laboratory.labels.numpy() for each in found])
    right = np.concatenate([each.predicted for each in found]) == true
    assert new.accuracy == Share(int(right[true >= 0].sum()), 36)
    assert again.sure.cells == 0 and again.held_out == again.cells and new.held_out == 0
    everything = replace(model, threshold=replace(model.threshold, value=0.0))
    assert scored([answers(everything, own.laboratory)], everything).sure.cells == 0
    html = report_html([own], model)
    assert f"{again.cells} cells that the threshold was chosen on" in html
    seen = scored([own], replace(model, fitted=model.fitted | model.held_out))
    assert seen is not None and not seen.fresh and seen.cells == 40
    blank = replace(own, laboratory=replace(own.laboratory, labels=torch.full((40,), UNKNOWN)))
    assert scored([blank], model) is None


def _digests(lab: Laboratory) -> frozenset[str]:
    from acclimate.fields.cells.desk.model import digests

    return frozenset(digests(lab.images))


def test_intervals_are_exact() -> None:
    """Clopper-Pearson: 8 of 10 is 44.4 to 97.5 %, and the ends stay in 0..1."""
    assert (Share(8, 10).low, Share(8, 10).high) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert (Share(0, 5).low, Share(5, 5).high) == (0, 1)


def test_the_page_stands_alone_and_shows_what_there_is(model: CellModel, found: list[Answers], tmp_path: Path) -> None:
    html = write_report(tmp_path / "r.html", found, model, "made by a test").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    for title in ("In short", "Right and wrong", "Confusion", "Least certain", "Masks", "Where cells lie", "Problems"):
        assert f">{title}</h" in html
    for name in model.classes:
        assert f"Answered {name}" in html
    assert "broken.png" in html and "made by a test" in html and "A classifier guesses the laboratory" in html
    assert html.count("data:image/jpeg") >= 24 + 12
    least = min((float(top), key) for each in found for top, key in zip(each.top, each.laboratory.keys, strict=True))
    assert html.index(least[1], html.index("Least certain")) < html.index("Masks</h2>")


def test_a_page_without_labels_says_why_nothing_is_scored(model: CellModel, found: list[Answers]) -> None:
    lab = replace(found[0].laboratory, labels=torch.full((24,), UNKNOWN), keys=tuple(f"<b>{i}" for i in range(24)))
    html = report_html([replace(found[0], laboratory=lab)], model)
    assert "No class is known" in html and "Confusion" not in html
    assert "&lt;b&gt;3" in html and "<b>" not in html


def test_contours_run_along_the_parts() -> None:
    image = np.full((3, 32, 32), 200, dtype=np.uint8)
    mask = np.zeros((32, 32), dtype=np.int8)
    mask[4:28, 4:28], mask[12:20, 12:20] = 1, 2
    drawn = outlined(image, mask, 64)
    cell, nucleus = ((drawn == colour).all(2) for colour in (CELL, NUCLEUS))
    assert cell[8, 8:56].mean() > 0.9 and nucleus[24, 25:39].all()
    assert not cell[:6].any() and not cell[12:52, 12:52].any() and not nucleus[28:36, 28:36].any()
    assert (drawn[~(cell | nucleus)] == 200).all()


def test_a_plane_keeps_neighbours_together() -> None:
    random = np.random.default_rng(0)
    away = np.repeat([0.0, 9.0], 30)[:, None] + random.normal(0, 1, (60, 5))
    for rows, by in ((away, "t-SNE"), (away[20:40], "PCA"), (away[20:40, :1], "PCA")):
        places, found = projected(rows.astype(np.float32))
        assert found == by and places.shape == (len(rows), 2)
        half = len(rows) // 2
        gap = np.linalg.norm(places[:half].mean(0) - places[half:].mean(0))
        assert gap > places[:half].std(0).max()
    figure = planes({"a": away, "b": away}, {"class": ["x", UNNAMED] * 30, "laboratory": ["x", "y"] * 30})
    assert [axes.get_title(loc="left") for axes in figure.axes][1] == "a, by laboratory (t-SNE)"


def test_pictures_are_spread_and_suffixes_checked(tmp_path: Path) -> None:
    assert spread(1, 5) == [0] and spread(100, 3)[-1] == 99
    assert check_suffix("x.CSV", ".csv") == Path("x.CSV")
    with pytest.raises(ValueError, match="ends in"):
        check_suffix(tmp_path / "x.txt", ".csv")
