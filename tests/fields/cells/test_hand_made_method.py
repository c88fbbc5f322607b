"""`hand-made`: codes of shape and colour on predicted masks, in place of an autoencoder's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cells_command import lay

from acclimate.cli import main
from acclimate.fields.cells.bridge import cell_model, side_codes
from acclimate.fields.cells.classify.classifiers import build
from acclimate.fields.cells.classify.hand_made import hand_made
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.desk.answering import answers
from acclimate.fields.cells.desk.model import CellModel
from acclimate.fields.cells.desk.report import report_html
from acclimate.fields.cells.desk.seeing import sighted
from acclimate.fields.cells.desk.training import train
from acclimate.fields.cells.pipeline import CellEncoder, train_encoder
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.sam.learning import MaskTraining
from acclimate.fields.cells.sam.seeing import see
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.sizes import UNIT


def quick() -> Plan:
    """A plan of seconds, that would see cells from eight sides."""
    short = MaskTraining(epochs=4, batch_size=16, learning_rate=2e-3)
    return Plan(size="unit", method="hand-made", start=short, masks=short)


@pytest.fixture(scope="module")
def trained(laboratories: list[Laboratory], tmp_path_factory: pytest.TempPathFactory) -> tuple[CellModel, Path]:
    folder = tmp_path_factory.mktemp("model")
    return train(laboratories, quick(), folder, error=0.3), folder


def test_codes_are_measured_on_predicted_masks_and_standardised(
    trained: tuple[CellModel, Path], laboratories: list[Laboratory]
) -> None:
    encoder, lab = trained[0].encoder, laboratories[1]
    masks = see(encoder.segmenter, lab, own_colours=True).masks
    plain = hand_made(lab.images, masks).astype(np.float64)
    expected = (plain - plain.mean(0)) / np.maximum(plain.std(0), 1e-4)
    found = sighted(encoder, lab)
    assert (plain.std(0) > 1e-3).sum() > 12 and torch.equal(found.masks, masks)
    assert found.codes.shape == (40, 16) and found.codes.dtype == torch.float32
    np.testing.assert_allclose(found.codes.numpy(), expected, atol=1e-3)
    raw = sighted(replace(encoder, plan=replace(encoder.plan, own=False)), lab, at_once=15)
    np.testing.assert_array_equal(raw.codes.numpy(), hand_made(lab.images, raw.masks))  # each cell in its place


def test_each_cell_is_seen_once(trained: tuple[CellModel, Path], laboratories: list[Laboratory]) -> None:
    encoder, seen = trained[0].encoder, list[int]()
    assert (encoder.plan.sides, encoder.plan.told()["sides"]) == (8, 1)
    with encoder.segmenter.register_forward_pre_hook(lambda _, given: seen.append(len(given[0]))):
        sighted(encoder, laboratories[0])
    assert sum(seen) == 40


def test_a_cell_that_was_not_found_has_finite_codes_and_stays_marked(
    trained: tuple[CellModel, Path], laboratories: list[Laboratory]
) -> None:
    encoder = trained[0].encoder
    views = encoder.look(laboratories[0])
    views.masks[3] = 0
    raw = replace(encoder, plan=replace(encoder.plan, own=False)).codes(views)
    assert not raw[3].any() and raw[4].any() and bool(encoder.codes(views).isfinite().all())
    blind = Segmenter(UNIT, parts=3).eval()
    blind.register_forward_hook(lambda _, __, out: out._replace(logits=out.logits * 0))  # the first part: background
    nothing = sighted(CellEncoder(encoder.plan, blind, None), laboratories[0])
    assert bool(nothing.empty.all()) and not nothing.codes.any()


def test_what_is_read_answers_as_written(trained: tuple[CellModel, Path], laboratories: list[Laboratory]) -> None:
    model, folder = trained
    assert not list((folder / "stages").glob("hand-made*")) and not (folder / "autoencoder.safetensors").exists()
    assert json.loads((folder / "plan.json").read_text())["method"] == "hand-made"
    first, again = (answers(each, laboratories[0]) for each in (model, CellModel.load(folder)))
    assert torch.equal(first.sight.codes, again.sight.codes)
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert "unit, hand-made features" in report_html([first], model)


def test_what_hand_made_features_cannot_do_is_told(
    trained: tuple[CellModel, Path], laboratories: list[Laboratory], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"'hand-made' and parts is 2.*Take parts=3, or method"):
        replace(quick(), parts=2)
    whole = [replace(each, masks=torch.as_tensor(each.masks).clamp(max=1)) for each in laboratories]
    with pytest.raises(ValueError, match=r"made-up-1, made-up-2: no mask shows a nucleus.*255 nucleus"):
        train_encoder(whole, quick(), tmp_path)
    assert not list(tmp_path.iterdir())
    encoder, lab = trained[0].encoder, laboratories[0]
    views = encoder.look(lab)
    classifier = build("logistic").fit(encoder.codes(views), lab.labels)
    for refused in (lambda: side_codes(encoder, views), lambda: cell_model(encoder, lab, views, classifier)):
        with pytest.raises(ValueError, match=r"no gradient.*train an encoder with method 'bcsam'"):
            refused()


def test_the_command_line_end_to_end(tmp_path: Path) -> None:
    lay(tmp_path / "berlin", 0, 24, tmp_path / "masks/berlin")
    lay(tmp_path / "quito", 1, 24)
    options = ["--masks", str(tmp_path / "masks"), "--size", "unit", "--epochs", "1", "--method", "hand-made"]
    model, out = str(tmp_path / "model"), str(tmp_path / "codes.npz")
    assert main(["cells", "train", str(tmp_path / "berlin"), *options, "--out", model, "--error", "0.3"]) == 0
    assert main(["cells", "embed", model, str(tmp_path / "quito"), "--out", out]) == 0
    with np.load(out, allow_pickle=False) as stored:
        assert stored["codes"].shape == (24, 16)
    assert main(["cells", "classify", model, str(tmp_path / "quito"), "--out", str(tmp_path / "classify.csv")]) == 0
    assert main(["cells", "report", model, str(tmp_path / "quito"), "--out", str(tmp_path / "report.html")]) == 0
    assert len((tmp_path / "classify.csv").read_text().splitlines()) == 25
    assert "hand-made features" in (tmp_path / "report.html").read_text(encoding="utf-8")
