"""What training at the desk leaves, what it refuses, and what it does when it is done twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.desk.copies import copies
from acclimate.fields.cells.desk.model import CellModel, digests
from acclimate.fields.cells.desk.naming import together
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
def trained(laboratories: list[Laboratory], tmp_path_factory: pytest.TempPathFactory) -> tuple[CellModel, Path]:
    folder = tmp_path_factory.mktemp("model")
    return train(laboratories, quick(), folder, error=0.3), folder


def repeated(lab: Laboratory, times: int) -> Laboratory:
    """Each picture under so many names."""
    keys = tuple(f"{key}-{time}" for time in range(times) for key in lab.keys)
    images, labels = lab.images.repeat(times, 1, 1, 1), lab.labels.repeat(times)
    return replace(lab, images=images, labels=labels, keys=keys, masks=lab.masks.repeat(times, 1, 1))


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


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("cells.json", lambda _: "{}"),
        ("cells.json", lambda _: "[]"),
        ("cells.json", lambda _: "\ud800"),
        ("cells.json", lambda told: told["threshold"].update(value="x")),
        ("cells.json", lambda told: told["threshold"].update(value=7)),
        ("cells.json", lambda told: told["threshold"].pop("parts")),
        ("cells.json", lambda told: told["threshold"].update(parts=[1])),
        ("cells.json", lambda told: told.update(threshold=None)),
        ("cells.json", lambda told: told.update(temperature=float("nan"))),
        ("cells.json", lambda told: told.update(temperature="1")),
        ("cells.json", lambda told: told.update(classes=told["classes"][:3])),
        ("cells.json", lambda told: told.update(classes=[*told["classes"], "odd"])),
        ("cells.json", lambda told: told.update(classes=4)),
        ("cells.json", lambda told: told.update(format=1)),
        ("cells.json", lambda told: told.update(pictures=None)),
        ("plan.json", lambda _: None),
        ("segmenter.safetensors", lambda _: None),
        ("classifier.safetensors", lambda _: None),
        ("classifier.safetensors", lambda _: "short"),
    ],
)
def test_a_damaged_model_is_named(trained: tuple[CellModel, Path], tmp_path: Path, part: str, change: Any) -> None:
    """Whatever is missing or altered: one ValueError that names the folder. `change` gives text, None for no file, or
    alters the record."""
    for path in trained[1].iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    assert CellModel.load(tmp_path).classes == trained[0].classes
    told = json.loads((tmp_path / part).read_text()) if part == "cells.json" else None
    text, path = change(told), tmp_path / part
    if isinstance(text, str):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    elif part == "cells.json":
        path.write_text(json.dumps(told))
    else:
        path.unlink()
    with pytest.raises(ValueError, match=r"model folder .* is damaged: .*Restore it"):
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
    assert model.threshold.parts[0].name == first.name and len(model.threshold.parts) == 1
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
    with pytest.raises(ValueError, match="5 different labelled cells"):
        train([first.take(torch.arange(8))], quick(), tmp_path)
    with pytest.raises(ValueError, match="5 different labelled cells"):
        train([repeated(first.take(torch.arange(4)), 10)], quick(), tmp_path)
    with pytest.raises(ValueError, match="error is 0"):
        train([second], quick(), tmp_path, error=0)
    with pytest.raises(ValueError, match="most must be a whole number of at least 1"):
        train([second], quick(), tmp_path, most=0)
    with pytest.raises(ValueError, match="classifier"):
        train([second], quick(), tmp_path, classifier="oracle")
    assert not list(tmp_path.iterdir())


def test_large_laboratories_are_seen_in_parts(trained: tuple[CellModel, Path], laboratories: list[Laboratory]) -> None:
    """Each cell keeps its place: with a plan without own colours the parts change nothing."""
    encoder = replace(trained[0].encoder, plan=replace(trained[0].encoder.plan, own=False))
    counted: list[tuple[int, int]] = []
    whole = sighted(encoder, laboratories[0])
    parts = sighted(encoder, laboratories[0], at_once=15, progress=lambda *done: counted.append(done))
    assert torch.allclose(whole.codes, parts.codes, atol=1e-4) and torch.equal(whole.masks, parts.masks)
    assert counted[-1] == (40, 40) and counted == sorted(counted)


def test_copies_are_named_and_teach_nothing_about_the_held_out(
    trained: tuple[CellModel, Path], laboratories: list[Laboratory], tmp_path: Path
) -> None:
    """Pictures four times under labels that say nothing: a forest that had seen the copies would know them all."""
    (tmp_path / "stages").mkdir()
    for path in (trained[1] / "stages").glob("start-*"):
        shutil.copy(path, tmp_path / "stages")
    drawn = torch.randint(4, (40,), generator=torch.Generator().manual_seed(0))
    lab = repeated(replace(laboratories[0], labels=drawn), 4)
    plan = replace(quick(), method="none")
    model = train([lab], plan, tmp_path, classifier="forest", error=0.3)
    held = model.taught["held_out"]
    assert held["cells"] == sum(count // 5 for count in drawn.bincount().tolist()) == len(model.held_out)
    assert held["right"] <= 5 and not model.held_out & model.fitted  # chance: 1.75 of 7
    (note,) = (note for note in model.taught["notes"] if "there" in note)
    assert note.startswith("40 pictures are there twice or more")
    assert len(copies([lab])) == 120


def test_names_that_differ_in_case_and_dashes_alone_are_one_class(
    trained: tuple[CellModel, Path], laboratories: list[Laboratory], tmp_path: Path
) -> None:
    first, second = laboratories
    odd = replace(second, classes=("Neutrophil", "LYMPHOCYTE", "monocyte", "eosino-phil"))
    own = together([first, odd])
    assert own[0].classes == ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "eosino-phil")
    assert torch.equal(own[1].labels[second.labels < 3], second.labels[second.labels < 3])
    one = replace(first.take(first.labels == 0), name="oslo", keys=tuple(f"o{i}" for i in range(10)))
    (tmp_path / "stages").mkdir()
    for path in (trained[1] / "stages").glob("start-*"):
        shutil.copy(path, tmp_path / "stages")
    notes = train([odd, one], replace(quick(), method="none"), tmp_path).taught["notes"]
    assert "neutrophil counts as Neutrophil" in notes
    assert any(note.startswith("oslo has cells of one class alone (Neutrophil)") for note in notes)
