"""Folders of images as laboratories, to teach and to ask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.data.problems import Severity
from acclimate.fields.cells.desk.opening import asked, teaching

torch.set_num_threads(1)


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
