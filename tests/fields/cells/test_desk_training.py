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
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.data.made_up import made_up
from acclimate.fields.cells.data.problems import Severity
from acclimate.fields.cells.desk.calibration import calibrated, held_out, once, promise
from acclimate.fields.cells.desk.copies import copies, copies_note
from acclimate.fields.cells.desk.model import CellModel, digests
from acclimate.fields.cells.desk.naming import relabelled, together
from acclimate.fields.cells.desk.opening import asked, teaching
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


def test_a_fifth_is_drawn_of_each_class_and_each_laboratory() -> None:
    """Of 30, 20 and 4 cells of a class in three laboratories 10 are drawn: 6, 4, and the rest of one."""
    origins = torch.tensor([0] * 30 + [1] * 20 + [2] * 4)
    for seed in range(20):
        held = held_out(torch.zeros(54, dtype=torch.int64), seed, origins=origins)
        assert [int(held[origins == place].sum()) for place in range(3)] == [6, 4, 0]


@settings(max_examples=60, deadline=None)
@given(
    some.lists(some.tuples(some.integers(-1, 1), some.integers(0, 30)), min_size=1, max_size=80), some.integers(0, 9)
)
def test_copies_are_never_parted(cells: list[tuple[int, int]], seed: int) -> None:
    labels, words = torch.tensor([label for label, _ in cells]), [f"{word}" for _, word in cells]
    held = held_out(labels, seed, words=words)
    known = labels != UNKNOWN
    for word in set(words):
        own = torch.tensor([each == word for each in words]) & known
        assert held[own].all() or not held[own].any()
    assert not held[~known].any()
    first = {f"{word}": label for label, word in reversed(cells) if label != UNKNOWN}
    of_class = [list(first.values()).count(label) for label in range(2)]
    pictures = once(held, words)
    drawn = [first[word] for word, chosen in zip(words, pictures.tolist(), strict=True) if chosen]
    assert [drawn.count(label) for label in range(2)] == [count // 5 for count in of_class]
    assert not (pictures & ~held).any() and len({words[i] for i in pictures.nonzero()[:, 0].tolist()}) == pictures.sum()


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


def test_copies_under_two_classes_are_doubtful(laboratories: list[Laboratory]) -> None:
    first = laboratories[0].take(torch.arange(4))
    again = replace(first, name="again", labels=torch.tensor([0, 1, 2, 0]), classes=("Neutrophil", "lymphocyte", "x"))
    told = copies([first, again])
    assert [(each.laboratory, each.problem.severity) for each in told] == [
        ("again", Severity.REPAIRED),
        ("again", Severity.REPAIRED),
        ("again", Severity.DOUBTFUL),
        ("again", Severity.DOUBTFUL),
    ]
    assert told[2].problem.what == "is the same picture as made-up-1/0002 of made-up-1, which counts as monocyte"
    words = [*digests(first.images), *digests(again.images)]
    assert copies_note([first, again], words).startswith("4 pictures are there twice (made-up-1: made-up-1/0000 and ag")
    assert copies_note([first], words[:4]) == "" and copies([first]) == []


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


def test_a_promise_that_cannot_be_kept_is_told() -> None:
    random = np.random.default_rng(0)
    said = random.dirichlet(np.ones(3), 60)
    _, threshold = calibrated(said, random.integers(0, 3, 60), 0.05, ["oslo"] * 60)
    assert threshold.value is None and threshold.unsure(said).all()
    assert "Every cell is called unsure" in promise(threshold)
    assert "takes 104 held-out cells of a laboratory, and there are of oslo 60" in promise(threshold)
    right = np.eye(3)[np.arange(300) % 3] * 0.9 + 0.1 / 3
    _, threshold = calibrated(right, np.arange(300) % 3, 0.05, ["oslo"] * 280 + ["lima"] * 20)
    assert threshold.value is not None and "5% of the sure answers are wrong in oslo" in promise(threshold)
    told = promise(threshold, ["basophil"])
    assert "lima, with 20 of the 117 held-out cells" in told and "basophil, of which no cell was held out" in told
    _, threshold = calibrated(right, (np.arange(300) // 150 + np.arange(300)) % 3, 0.05, ["a"] * 150 + ["b"] * 150)
    assert threshold.value is None and "cannot be promised" in promise(threshold)


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
    save(second.take(torch.arange(4)), tmp_path / "quito")
    (tmp_path / "quito/neutrophil").rename(tmp_path / "oslo")
    heard: list[str] = []
    found = teaching(
        [str(tmp_path / name) for name in ("berlin", "oslo", "quito")],
        tmp_path / "masks",
        size=64,
        progress=lambda what, *_: heard.append(what),
    ).laboratories
    assert [each.name for each in found] == ["berlin", "oslo", "quito"]
    assert [len(each.classes) for each in found] == [4, 0, 3]
    assert [int(each.masked.sum()) for each in found] == [8, 0, 0]
    assert sorted(found[0].masks.unique().tolist()) == [0, 1, 2]
    assert set(heard) == {"reading berlin", "reading oslo", "reading quito"}
    (alone,) = teaching([str(tmp_path / "berlin")], tmp_path / "masks/berlin", size=64).laboratories
    assert alone.masked.all()
    for lab in found[1:]:
        assert "no folder of its name in" in lab.problems[0].what and lab.problems[0].key == lab.name


def test_what_is_asked_for_has_labels_by_the_names_of_folders(laboratories: list[Laboratory], tmp_path: Path) -> None:
    save(laboratories[0].take(torch.arange(8)), tmp_path / "lab")
    (tmp_path / "lab/eosinophil").rename(tmp_path / "lab/odd")
    (tmp_path / "lab/monocyte").rename(tmp_path / "lab/Monocyte")
    (found,) = asked([str(tmp_path / "lab")], ("neutrophil", "lymphocyte", "monocyte"), size=64).laboratories
    names = [found.classes[label] if label >= 0 else "odd" for label in found.labels]
    assert names == [key.partition("/")[0].lower() for key in found.keys] and len(found) == 8
    assert [each.key for each in found.problems] == ["odd"]
    (rest,) = asked([str(tmp_path / "lab")], ("monocyte",), size=64, without=[str(tmp_path / "lab/odd")]).laboratories
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


def test_folders_of_masks_and_those_left_out_are_no_class(laboratories: list[Laboratory], tmp_path: Path) -> None:
    """`masks` by its name at any depth, one of another name where it is given."""
    save(laboratories[0].take(torch.arange(8)), tmp_path / "lab", tmp_path / "lab/Masks")
    save(laboratories[0].take(torch.arange(8)), tmp_path / "drawn")
    (tmp_path / "drawn").rename(tmp_path / "lab/drawn")
    for path in [*(tmp_path / "lab/drawn").iterdir()]:
        for image in path.iterdir():
            image.rename(tmp_path / "lab/drawn" / f"{path.name}-{image.name}")
    four = {"neutrophil", "lymphocyte", "monocyte", "eosinophil"}
    lab, drawn = str(tmp_path / "lab"), str(tmp_path / "lab/drawn")
    (found,) = teaching([lab], size=64).laboratories
    assert set(found.classes) == {*four, "drawn"}
    assert [(each.key, each.severity) for each in found.problems] == [("Masks", Severity.FOLDER)]
    for options in ({"without": [drawn]}, {"masks": drawn}):
        (found,) = teaching([lab], size=64, **options).laboratories
        assert set(found.classes) == four and len(found) == 8
    (found,) = asked([lab], ("neutrophil",), size=64).laboratories
    assert len(found) == 16 and "Masks" in [each.key for each in found.problems]
    (found,) = asked([lab], ("neutrophil",), size=64, without=[drawn]).laboratories
    assert len(found) == 8


def test_the_folder_above_laboratories_is_refused_for_teaching(laboratories: list[Laboratory], tmp_path: Path) -> None:
    for place in "ab":
        save(laboratories[0].take(torch.arange(4)), tmp_path / "top" / place)
    with pytest.raises(ValueError, match=r"If a is a laboratory, name it .*top/a .*top/b\. If it is a class"):
        teaching([str(tmp_path / "top")], size=64)


def test_a_folder_of_which_nothing_can_be_read_does_not_stop_the_others(
    laboratories: list[Laboratory], tmp_path: Path
) -> None:
    save(laboratories[0].take(torch.arange(4)), tmp_path / "good")
    (tmp_path / "rot/monocyte").mkdir(parents=True)
    (tmp_path / "rot/monocyte/a.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    names = [str(tmp_path / name) for name in ("rot", "good", "empty")]
    for found in (teaching(names, size=64), asked(names, ("monocyte",), size=64)):
        assert [each.name for each in found.laboratories] == ["good"]
        told = {each.name: [(one.key, one.severity) for one in each.problems] for each in found.failed}
        assert told == {"rot": [("monocyte/a.png", Severity.LEFT_OUT)], "empty": [("empty", Severity.FOLDER)]}
    with pytest.raises(ValueError, match=r"Nothing in 'rot' can be read: monocyte/a.png is not .* no images below"):
        teaching([names[0], names[2]], size=64)
    assert asked([names[0]], ("monocyte",), size=64).laboratories == []


def test_the_shared_set_outside_its_place_says_what_the_command_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCLIMATE_SHARED", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"Set ACCLIMATE_SHARED .* \(\./wbc for one of that name\)") as caught:
        teaching(["wbc"], size=64)
    assert "data=" not in str(caught.value)
