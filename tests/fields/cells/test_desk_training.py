"""What training at the desk leaves, what it refuses, and what it does when it is done twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.data.made_up import made_up
from acclimate.fields.cells.desk.calibration import calibrated, held_out, promise
from acclimate.fields.cells.desk.model import CellModel, digests
from acclimate.fields.cells.desk.opening import asked, relabelled, teaching
from acclimate.fields.cells.desk.seeing import sighted
from acclimate.fields.cells.desk.training import train
from acclimate.fields.cells.plan import Plan

torch.set_num_threads(1)


def quick() -> Plan:
    """A plan of seconds."""
    plan = Plan(size="unit", sides=1)
    start, masks = (replace(each, epochs=1) for each in (plan.start, plan.masks))
    return replace(plan, start=start, masks=masks, training=replace(plan.learned, epochs=1))


@pytest.fixture(scope="module")
def laboratories() -> list[Laboratory]:
    return list(made_up(40, 0, size=64).values())


@pytest.fixture(scope="module")
def trained(laboratories: list[Laboratory], tmp_path_factory: pytest.TempPathFactory) -> tuple[CellModel, Path]:
    folder = tmp_path_factory.mktemp("model")
    return train(laboratories, quick(), folder, error=0.3), folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fifth_of_each_class_is_held_out_and_the_classifier_never_sees_it(
    trained: tuple[CellModel, Path], laboratories: list[Laboratory]
) -> None:
    model, folder = trained
    record = json.loads((folder / "cells.json").read_text())
    assert record["held_out"]["cells"] == 16 and record["threshold"]["cells"] == 16
    assert [each["cells"] for each in record["laboratories"]] == [40, 40]
    assert [each["fingerprint"] for each in record["laboratories"]] == [each.fingerprint() for each in laboratories]
    assert len(model.held_out) == 16 and len(model.fitted) == 64 and not model.held_out & model.fitted
    known = {
        word: int(label) for lab in laboratories for word, label in zip(digests(lab.images), lab.labels, strict=True)
    }
    assert np.bincount([known[word] for word in model.held_out]).tolist() == [4, 4, 4, 4]


def test_what_is_read_answers_as_what_was_written(
    trained: tuple[CellModel, Path], laboratories: list[Laboratory]
) -> None:
    model, folder = trained
    again = CellModel.load(folder)
    codes = sighted(model.encoder, laboratories[0]).codes
    assert torch.equal(sighted(again.encoder, laboratories[0]).codes, codes)
    assert np.array_equal(again.probabilities(codes), model.probabilities(codes))
    assert (again.threshold, again.temperature, again.classes) == (model.threshold, model.temperature, model.classes)
    assert again.fitted == model.fitted and again.taught == model.taught


@pytest.mark.slow
def test_training_that_was_interrupted_goes_on_and_gives_the_same_files(
    trained: tuple[CellModel, Path], laboratories: list[Laboratory], tmp_path: Path
) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("seeing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(laboratories, quick(), tmp_path, error=0.3, progress=stop)
    (kept,) = (path for path in (tmp_path / "stages").iterdir() if path.name.startswith("masks"))
    before, heard = kept.stat().st_mtime_ns, list[str]()
    with pytest.raises(FileNotFoundError, match="an unfinished training"):
        CellModel.load(tmp_path)
    train(laboratories, quick(), tmp_path, error=0.3, progress=lambda what, *_: heard.append(what))
    assert kept.stat().st_mtime_ns == before and "masks" not in heard and "dorl" in heard
    assert files(tmp_path) == files(trained[1])


def test_a_damaged_model_is_named(trained: tuple[CellModel, Path], tmp_path: Path) -> None:
    for name, data in files(trained[1]).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "cells.json").write_text("{}")
    with pytest.raises(ValueError, match="damaged"):
        CellModel.load(tmp_path)


def test_cells_without_a_class_teach_the_encoder_alone(
    trained: tuple[CellModel, Path], laboratories: list[Laboratory], tmp_path: Path
) -> None:
    first, second = laboratories
    (start,) = (trained[1] / "stages").glob("start-*")
    (tmp_path / "stages").mkdir()
    shutil.copy(start, tmp_path / "stages")
    loose = replace(second, labels=torch.full_like(second.labels, UNKNOWN), masks=None)
    model = train([first, loose], quick(), tmp_path, error=0.3, most=30)
    assert len(model.fitted) + len(model.held_out) == 40
    assert [each["masked"] for each in model.taught["laboratories"]] == [40, 0]


def test_what_cannot_be_learned_from_is_refused_before_any_training(
    laboratories: list[Laboratory], tmp_path: Path
) -> None:
    first, second = laboratories
    blind = [replace(each, masks=None) for each in laboratories]
    with pytest.raises(ValueError, match=r"no mask is known for any of 80 pictures.*--masks"):
        train(blind, quick(), tmp_path)
    one = first.take(first.labels == 0)
    with pytest.raises(ValueError, match=r"1 class \(neutrophil\), expected two classes"):
        train([one], quick(), tmp_path)
    with pytest.raises(ValueError, match="5 labelled cells"):
        train([first.take(torch.arange(8))], quick(), tmp_path)
    with pytest.raises(ValueError, match="error is 0"):
        train([second], quick(), tmp_path, error=0)
    with pytest.raises(ValueError, match="classifier"):
        train([second], quick(), tmp_path, classifier="oracle")
    assert not list(tmp_path.iterdir())


def test_labels_mean_the_same_in_all_laboratories(laboratories: list[Laboratory]) -> None:
    turned = relabelled(laboratories[0], ("monocyte", "neutrophil"))
    names = [laboratories[0].classes[label] for label in laboratories[0].labels]
    assert [turned.classes[label] if label >= 0 else "" for label in turned.labels] == [
        name if name in ("monocyte", "neutrophil") else "" for name in names
    ]


def test_large_laboratories_are_seen_in_parts(trained: tuple[CellModel, Path], laboratories: list[Laboratory]) -> None:
    """Each cell keeps its place: with a plan without own colours the parts change nothing."""
    encoder = replace(trained[0].encoder, plan=replace(trained[0].encoder.plan, own=False))
    counted: list[tuple[int, int]] = []
    whole = sighted(encoder, laboratories[0])
    parts = sighted(encoder, laboratories[0], at_once=15, progress=lambda *done: counted.append(done))
    assert torch.allclose(whole.codes, parts.codes, atol=1e-4) and torch.equal(whole.masks, parts.masks)
    assert counted[-1] == (40, 40) and counted == sorted(counted)


def test_held_out_cells_are_drawn_by_the_seed_and_rare_classes_stay() -> None:
    labels = torch.tensor([0] * 50 + [1] * 4 + [UNKNOWN] * 20)
    first, again, other = (held_out(labels, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first[:50].sum() == 10 and not first[50:].any()


def test_a_promise_that_cannot_be_kept_is_told() -> None:
    random = np.random.default_rng(0)
    said = random.dirichlet(np.ones(3), 60)
    _, threshold = calibrated(said, random.integers(0, 3, 60), 0.05)
    assert threshold.value is None and threshold.unsure(said).all()
    assert "Every cell is called unsure" in promise(threshold)
    right = np.eye(3)[np.arange(300) % 3] * 0.9 + 0.1 / 3
    _, threshold = calibrated(right, np.arange(300) % 3, 0.05)
    assert threshold.value is not None and "5% of the sure answers are wrong" in promise(threshold)


def save(lab: Laboratory, folder: Path, masks: Path | None = None) -> Path:
    """A laboratory as PNG files in class folders, and its masks beside."""
    for image, label, key, mask in zip(lab.images, lab.labels, lab.keys, lab.masks, strict=True):
        name = f"{lab.classes[label]}/{Path(key).name}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
        if masks is not None:
            (masks / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((mask.numpy() * 127).astype(np.uint8)).save(masks / name)
    return folder


def test_folders_are_laboratories_with_masks_by_their_name(laboratories: list[Laboratory], tmp_path: Path) -> None:
    """127 and 254 are what grey and white become in many programs; a folder of images alone has no classes."""
    first, second = laboratories
    save(first.take(torch.arange(8)), tmp_path / "berlin", tmp_path / "masks/berlin")
    save(second.take(torch.arange(4)), tmp_path / "quito/all")
    (tmp_path / "quito/all/neutrophil").rename(tmp_path / "oslo")
    heard: list[str] = []
    found = teaching(
        [str(tmp_path / name) for name in ("berlin", "oslo", "quito")],
        tmp_path / "masks",
        size=64,
        progress=lambda what, *_: heard.append(what),
    )
    assert [each.name for each in found] == ["berlin", "oslo", "quito"]
    assert [len(each.classes) for each in found] == [4, 0, 1]
    assert [int(each.masked.sum()) for each in found] == [8, 0, 0]
    assert sorted(found[0].masks.unique().tolist()) == [0, 1, 2]
    assert set(heard) == {"reading berlin", "reading oslo", "reading quito"}
    (alone,) = teaching([str(tmp_path / "berlin")], tmp_path / "masks/berlin", size=64)
    assert alone.masked.all()


def test_what_is_asked_for_has_labels_by_the_names_of_folders(laboratories: list[Laboratory], tmp_path: Path) -> None:
    save(laboratories[0].take(torch.arange(8)), tmp_path / "lab")
    (tmp_path / "lab/eosinophil").rename(tmp_path / "lab/odd")
    (found,) = asked([str(tmp_path / "lab")], ("neutrophil", "lymphocyte", "monocyte"), size=64)
    names = [found.classes[label] if label >= 0 else "odd" for label in found.labels]
    assert names == [key.partition("/")[0] for key in found.keys] and len(found) == 8
    assert [each.key for each in found.problems] == ["odd"]
    (rest,) = asked([str(tmp_path / "lab")], ("monocyte",), size=64, without=[str(tmp_path / "lab/odd")])
    assert len(rest) == 6 and rest.labels.tolist().count(0) == 2


def test_laboratories_of_one_name_and_unknown_ones_are_refused(laboratories: list[Laboratory], tmp_path: Path) -> None:
    for place in "ab":
        save(laboratories[0].take(torch.arange(4)), tmp_path / place / "cells")
    with pytest.raises(ValueError, match="2 laboratories are called 'cells'"):
        teaching([str(tmp_path / "a/cells"), str(tmp_path / "b/cells")], size=64)
    with pytest.raises(ValueError, match="wbc"):
        teaching(["wbc:berlin"], size=64)
    with pytest.raises(FileNotFoundError, match="of masks"):
        teaching([str(tmp_path / "a/cells")], tmp_path / "nowhere", size=64)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        teaching([str(tmp_path / "nowhere")], size=64)
