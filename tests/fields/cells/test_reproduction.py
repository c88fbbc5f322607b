"""The comparison on made-up laboratories: every row, kept trials, tables that say what the trials do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch

from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.cells.data.made_up import made_up
from acclimate.fields.cells.embedding.learning import CodeTraining
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.reproduction import reproduce_cells
from acclimate.fields.cells.reproduction.bridging import bridged, encoders_of
from acclimate.fields.cells.reproduction.rows import ROWS, Material, chosen_rows
from acclimate.fields.cells.reproduction.tables import shown
from acclimate.fields.cells.reproduction.trials import classified, tried
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
    standard = found["sam:standard"]["made-up-1"]
    assert float(standard.mean(0).abs().max()) < 0.01
    assert not torch.equal(found["dorl"]["made-up-1"], found["dorl:map"]["made-up-1"])


def test_trials_are_kept_and_tables_say_what_they_say(material: Material, tmp_path: Path) -> None:
    rows = chosen_rows(["pixels", "bcsam"])
    trials = {row.key: [tried(material, row, seed, CLASSIFIERS) for seed in (0, 1)[: 1 + row.seeded]] for row in rows}
    again = Material(material.laboratories, material.plan, material.folder)
    assert tried(again, rows[1], 1, CLASSIFIERS) == trials["bcsam"][1]
    assert "segmenter" not in again.__dict__  # nothing was trained or looked at
    page = shown(rows, trials, CLASSIFIERS, "made up")
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
    assert abs(trial.origin - 0.5) < 0.25  # of two laboratories


def test_the_bridge_has_a_line_for_each_encoder_and_adapts(material: Material) -> None:
    encoders = encoders_of(material, {"SAM": "none", "BC-SAM": "bcsam"}, 0)
    grid = bridged(material, encoders, ("source", "bn"))
    assert [line.name for line in grid.lines] == ["SAM", "BC-SAM"]
    assert all(0 <= float(cell) <= 100 for line in grid.lines for cell in line.cells if cell is not None)
    kept = list((material.folder / "trials").glob("bridge-*.json"))
    assert len(kept) == 4 and all(len(json.loads(path.read_text(encoding="utf-8"))) == 2 for path in kept)


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no row 'cnn'"):
        reproduce_cells(tmp_path, methods=("cnn",))
    with pytest.raises(ValueError, match="expected some of"):
        reproduce_cells(tmp_path, classifiers=("oracle",))
    with pytest.raises(ValueError, match="seeds that differ"):
        reproduce_cells(tmp_path, seeds=(1, 1))
    with pytest.raises(ValueError, match="method"):
        replace(PLAN, method="cnn")


def test_the_papers_own_data_are_compared_on_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from acclimate.fields.cells.reproduction import gathering

    cells = made_up(16, 2, palettes=3, size=64)
    codes = {"matek": ("NGS", "LYT", "MON", "EOS"), "acevedo": ("SNE", "LY", "MO", "EO")}
    for (name, own), lab in zip(codes.items(), cells.values(), strict=False):
        for place, (image, label) in enumerate(zip(lab.images, lab.labels.tolist(), strict=True)):
            path = tmp_path / "data" / name / own[label] / f"{own[label]}_{place:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    Segmenter(UNIT, rank=0).sam.save_pretrained(tmp_path / "sam")
    monkeypatch.setattr(gathering, "laboratories", lambda size: {"teacher": cells["made-up-3"]})
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
