"""The comparison on made-up laboratories: every row, kept trials, tables that say what the trials do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from acclimate.experiment.reproduce.part import Grid
from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.cells.bridge import cell_model, side_codes
from acclimate.fields.cells.classify.classifiers import build
from acclimate.fields.cells.data.classes import FOUR
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.data.made_up import made_up
from acclimate.fields.cells.embedding.learning import CodeTraining, level
from acclimate.fields.cells.pipeline import CellEncoder
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.reproduction import reproduce_cells, run
from acclimate.fields.cells.reproduction.bridging import bridged, encoders_of
from acclimate.fields.cells.reproduction.material import Material
from acclimate.fields.cells.reproduction.rows import ROWS, chosen_rows
from acclimate.fields.cells.reproduction.tables import shown
from acclimate.fields.cells.reproduction.trials import Trial, classified, shown_of, tried
from acclimate.fields.cells.sam.learning import MaskTraining
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.sizes import UNIT

pytest.importorskip("transformers")

ONCE = MaskTraining(epochs=1, batch_size=16, learning_rate=1e-3, own_colours=True)
PLAN = Plan(
    size="unit", start=None, masks=ONCE, sides=1, training=CodeTraining(epochs=1, batch_size=16, learning_rate=1e-3)
)
CLASSIFIERS = ("logistic", "svm")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    sam = Segmenter(UNIT, parts=3)
    return Material(made_up(24, 1, size=64), PLAN, tmp_path_factory.mktemp("cells"), published=sam)


def test_every_row_gives_finite_features_of_its_own(material: Material) -> None:
    found = {key: material.features(row, 0) for key, row in ROWS.items()}
    for key, features in found.items():
        assert {len(each) for each in features.values()} == {24}, key
        assert all(bool(torch.as_tensor(each).isfinite().all()) for each in features.values()), key
    assert not torch.equal(found["sam"]["made-up-1"], found["sam:start"]["made-up-1"])
    for key in ("sam", "pixels", "hand-made"):
        for name, plain in found[key].items():
            values = plain.double().numpy()
            moved = found[f"{key}:standard"][name].double().numpy()
            assert np.abs(moved.mean(0)).max() < 0.01, key
            varied = values.std(0) > 1e-3
            if key == "sam":  # of feature maps that were standardised before, in half precision
                assert np.abs(moved.std(0) - 1).max() < 0.01
            else:
                expected = (values - values.mean(0)) / np.where(varied, values.std(0), 1)
                assert varied.any() and np.allclose(moved[:, varied], expected[:, varied], atol=1e-3), key
    assert not torch.equal(found["dorl"]["made-up-1"], found["dorl:map"]["made-up-1"])


def test_trials_are_kept_and_tables_say_what_they_say(material: Material, tmp_path: Path) -> None:
    rows = chosen_rows(["pixels", "bcsam"])
    trials = {row.key: [tried(material, row, seed, CLASSIFIERS) for seed in (0, 1)[: 1 + row.seeded]] for row in rows}
    fresh = Segmenter(UNIT, parts=3)
    again = Material(material.laboratories, material.plan, material.folder, published=fresh)
    assert tried(again, rows[1], 1, CLASSIFIERS) == trials["bcsam"][1]
    assert "segmenter" not in again.__dict__  # nothing was trained or looked at
    page = shown(rows, trials, CLASSIFIERS, FOUR, "made up")
    write_all(tmp_path, "cells", "", [page])
    written = json.loads((tmp_path / "tables" / "cells.json").read_text(encoding="utf-8"))["rows"]
    by_hand = 100 * fmean(trial.cross["macro_f1"][name] for trial in trials["bcsam"] for name in CLASSIFIERS)
    assert written[1]["mean"] == pytest.approx(by_hand)
    assert {"logistic", "svm", "origin"} <= set(written[0])


def test_features_that_hold_the_class_alone_score_full_marks_everywhere() -> None:
    labels = {name: torch.arange(40) % 4 for name in ("here", "there")}
    generator = torch.Generator().manual_seed(0)
    features = {
        name: torch.nn.functional.one_hot(each, 4).float() * 5 + 0.1 * torch.randn(40, 4, generator=generator)
        for name, each in labels.items()
    }
    trial = classified(features, labels, 4, ("logistic",))
    assert trial.cross["macro_f1"]["logistic"] == trial.within["accuracy"]["logistic"] == 1.0
    assert trial.matrix["here>there"]["interval"] == [1.0, 1.0]


def test_the_origin_is_guessed_where_nothing_tells_it_and_plain_where_something_does() -> None:
    cells = 600
    labels = {name: torch.arange(cells) % 4 for name in ("here", "there")}
    generator = torch.Generator().manual_seed(0)
    alike = {name: torch.randn(cells, 4, generator=generator) for name in labels}
    chance = classified(alike, labels, 4, ("logistic",)).origin
    assert abs(chance - 0.5) < 4 * (0.25 / (2 * cells)) ** 0.5  # four deviations of a fair coin
    apart = {name: each + 20 * place for place, (name, each) in enumerate(alike.items())}
    assert classified(apart, labels, 4, ("logistic",)).origin == 1.0


def test_without_logistic_regression_the_last_classifier_is_shown() -> None:
    assert shown_of(("forest", "logistic", "svm")) == "logistic"
    generator = torch.Generator().manual_seed(0)
    labels = {name: torch.arange(20) % 2 for name in ("here", "there")}
    features = {name: torch.randn(20, 3, generator=generator) for name in labels}
    both, alone = (classified(features, labels, 2, names) for names in (("svm-linear", "svm"), ("svm",)))
    assert both.matrix == alone.matrix and set(both.matrix) == {f"{a}>{b}" for a in labels for b in labels}
    for found in both.matrix.values():
        low, high = found["interval"]
        assert 0 <= low <= high <= 1


def hand_trial(confusions: dict[str, list[list[int]]]) -> Trial:
    matrix = {pair: {"macro_f1": 0.5, "interval": [0.4, 0.6], "confusion": c} for pair, c in confusions.items()}
    numbers = {"macro_f1": {"svm": 0.25, "logistic": 0.5}, "accuracy": {"svm": 0.5, "logistic": 0.75}}
    cross = {**numbers, "balanced_accuracy": {"svm": 0.125, "logistic": 0.375}}
    within = {name: {key: value + 0.125 for key, value in table.items()} for name, table in cross.items()}
    return Trial(0.5, cross, within, matrix, [])


def test_recalls_confusions_and_balanced_accuracy_are_shown_as_counted_by_hand(tmp_path: Path) -> None:
    same = [[99, 0, 0], [0, 99, 0], [0, 0, 99]]  # within a laboratory: of no account
    confusions = {
        "a>a": same,
        "a>b": [[6, 2, 0], [1, 3, 0], [0, 0, 0]],  # b has none of the third class
        "b>a": [[2, 2, 0], [0, 4, 0], [5, 0, 5]],
        "b>b": same,
    }
    rows = chosen_rows(["pixels"])
    page = shown(rows, {"pixels": [hand_trial(confusions)]}, CLASSIFIERS, ("one", "two", "three"), "made up")
    write_all(tmp_path, "cells", "", [page])

    def table(name: str) -> list[dict[str, float]]:
        return json.loads((tmp_path / "tables" / f"{name}.json").read_text(encoding="utf-8"))["rows"]

    recall = table("cells-recall")[0]
    assert [recall[name] for name in ("one", "two", "three")] == [62.5, 87.5, 50.0]
    counts = [[row[name] for name in ("one", "two", "three")] for row in table("cells-confusion")]
    assert counts == [[8, 4, 0], [1, 7, 0], [5, 0, 5]]
    found = table("cells-scores")[0]
    numbers = ("macro-F1", "balanced", "accuracy")
    assert [found[f"{number} elsewhere"] for number in numbers] == [37.5, 25.0, 62.5]
    assert [found[f"{number} within"] for number in numbers] == [50.0, 37.5, 75.0]
    assert "95 % bootstrap intervals over cells, logistic" in (tmp_path / "reproduce.md").read_text(encoding="utf-8")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"pairs.png", "confusion.png"}


def test_the_bridge_has_a_line_for_each_encoder_and_adapts(material: Material) -> None:
    encoders = encoders_of(material, {"SAM": "none", "BC-SAM": "bcsam"}, 0)
    grid = bridged(material, encoders, ("source", "bn"))
    assert [line.name for line in grid.lines] == ["SAM", "BC-SAM"]
    for line, encoder in zip(grid.lines, encoders.values(), strict=True):
        assert [float(cell or 0) for cell in line.cells] == pytest.approx(_by_hand(material, encoder), abs=0.01)
    kept = list((material.folder / "trials").glob("bridge-*.json"))
    assert len(kept) == 4 and all(len(json.loads(path.read_text(encoding="utf-8"))) == 2 for path in kept)


def _by_hand(material: Material, encoder: CellEncoder) -> list[float]:
    """Macro-F1 of the source's statistics, and of those of each batch, in %, mean over pairs."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for source, lab in material.laboratories.items():
        codes = level(side_codes(encoder, material.views[source].standard()))
        model = cell_model(encoder, lab, material.views[source], build("logistic").fit(codes, lab.labels))
        for target in (each for name, each in material.laboratories.items() if name != source):
            for renewed, scores in found.items():
                for module in model.modules():
                    if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                        module.train(renewed).momentum = 0.0
                with torch.no_grad():  # 24 cells are one batch, whose order has no part in its statistics
                    answers = model(target.images.float() / 255).argmax(1)
                scores.append(100 * float(f1_score(target.labels, answers, average="macro", zero_division=0)))
    return [fmean(scores) for scores in found.values()]


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no row 'cnn'"):
        reproduce_cells(tmp_path, methods=("cnn",))
    with pytest.raises(ValueError, match="expected some of"):
        reproduce_cells(tmp_path, classifiers=("oracle",))
    with pytest.raises(ValueError, match="seeds that differ"):
        reproduce_cells(tmp_path, seeds=(1, 1))
    with pytest.raises(ValueError, match="method"):
        replace(PLAN, method="cnn")


def test_settings_go_to_the_autoencoders_that_have_them(material: Material) -> None:
    shared = Material(material.laboratories, replace(PLAN, settings={"depth": 1, "inner": 16}), material.folder)
    plans = {key: shared.plan_of(row, 0) for key, row in ROWS.items()}
    assert plans["dorl"].chosen["depth"] == 1 and "inner" not in plans["dorl"].chosen
    assert plans["bcsam:free"].chosen["inner"] == 16 and "depth" not in plans["bcsam:free"].chosen
    assert plans["bcsam:free"].chosen["domain_weight"] == 0.0 and plans["sam"].chosen == {}
    assert all((plan.autoencoder() is None) == (plan.method == "none") for plan in plans.values())
    with pytest.raises(ValueError, match="no autoencoder has a setting 'depht'"):
        replace(PLAN, settings={"depht": 2})


def test_trials_are_of_one_published_encoder_and_its_teachers(material: Material, tmp_path: Path) -> None:
    row, labs = chosen_rows(["pixels"])[0], dict(list(material.laboratories.items()))
    teachers = list(made_up(4, 5, size=64).values())
    masks = teachers[0].masks
    assert masks is not None
    others = [
        Material(labs, PLAN, tmp_path, published=Segmenter(UNIT, parts=3)),
        Material(labs, PLAN, tmp_path, published=Segmenter(UNIT, parts=3, seed=1)),
        Material(labs, PLAN, tmp_path, published=Segmenter(UNIT, parts=3), teachers=teachers),
        Material(
            labs,
            PLAN,
            tmp_path,
            published=Segmenter(UNIT, parts=3),
            teachers=[replace(teachers[0], masks=masks.flip(0)), teachers[1]],
        ),
    ]
    for count, each in enumerate(others, 1):
        tried(each, row, 0, ("logistic",))
        assert len(list((tmp_path / "trials").iterdir())) == count
    tried(Material(labs, PLAN, tmp_path, published=Segmenter(UNIT, parts=3)), row, 0, ("logistic",))
    assert len(list((tmp_path / "trials").iterdir())) == len(others)


def papers_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders as the papers' data lie in, published weights, and a laboratory with masks."""
    from PIL import Image

    from acclimate.fields.cells.reproduction import gathering

    cells = made_up(16, 2, palettes=3, size=64)
    codes = {"matek": ("NGS", "LYT", "MON", "EOS"), "acevedo": ("SNE", "LY", "MO", "EO")}
    for (name, own), lab in zip(codes.items(), cells.values(), strict=False):
        for place, (image, label) in enumerate(zip(lab.images, lab.labels.tolist(), strict=True)):
            path = folder / "data" / name / own[label] / f"{own[label]}_{place:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    Segmenter(UNIT, rank=0).sam.save_pretrained(folder / "sam")

    def teacher(size: int) -> dict[str, Laboratory]:
        return {"teacher": cells["made-up-3"]}

    monkeypatch.setattr(gathering, "laboratories", teacher)


def test_the_papers_own_data_are_compared_on_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    papers_data(tmp_path, monkeypatch)
    plan = replace(PLAN, parts=2, own=False)
    with pytest.raises(ValueError, match="found no folder matek or acevedo"):
        reproduce_cells(tmp_path / "run", data=tmp_path, model=tmp_path / "sam", plan=plan)
    markdown, _ = reproduce_cells(
        tmp_path / "run",
        data=tmp_path / "data",
        model=tmp_path / "sam",
        plan=plan,
        methods=("sam", "bcsam"),
        classifiers=("logistic",),
    )
    text = markdown.read_text(encoding="utf-8")
    assert "matek > acevedo" in text or "matek>acevedo" in text
    assert "cells: matek 16, acevedo 16" in text and "60.36" in text  # the published table stands beside


def test_all_of_it_on_the_papers_data_ends_with_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    papers_data(tmp_path, monkeypatch)
    where: dict[str, Any] = {
        "data": tmp_path / "data",
        "model": tmp_path / "sam",
        "plan": replace(PLAN, parts=2, own=False),
    }
    tables, seen = tmp_path / "run" / "tables", list[bool]()

    def late(*given: Any, **named: Any) -> Grid:  # whatever happens to the models of laboratories, the tables are there
        seen.extend([(tables / "cells.json").is_file(), (tables / "cells-bridge.json").exists()])
        return bridged(*given, **named)

    monkeypatch.setattr(run, "bridged", late)
    markdown, _ = reproduce_cells(tmp_path / "run", classifiers=("logistic",), **where)
    assert seen == [True, False]
    rows = json.loads((tables / "cells-bridge.json").read_text(encoding="utf-8"))["rows"]
    assert [row["name"] for row in rows] == ["SAM features", "BC-SAM", "DoRL"]
    assert all(0 <= row[name] <= 100 for row in rows for name in ("no adaptation", "bn", "tent"))
    text = markdown.read_text(encoding="utf-8")
    assert all(row.title in text for row in ROWS.values()) and "unlabelled stream" in text
