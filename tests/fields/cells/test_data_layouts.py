"""Folders in the published layouts, made by hand, and folders with everything that can be wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate.fields.cells.data.classes import UNIFIED
from acclimate.fields.cells.data.laboratory import UNKNOWN, check_classes
from acclimate.fields.cells.data.layouts import acevedo, class_folders, loose, matek
from acclimate.fields.cells.data.problems import Severity
from acclimate.streams.scenes import VOID


def put(path: Path, colour: int = 100, size: tuple[int, int] = (20, 18)) -> Path:
    """A picture of one colour but for its first pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (colour, colour, colour))
    image.putpixel((0, 0), (0, 0, 0))
    image.save(path)
    return path


def put_mask(path: Path, values: tuple[int, ...], size: tuple[int, int] = (20, 18)) -> Path:
    """Rings of these grey levels from outside in, five pixels wide at most."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wide, high = size
    mask = np.full((high, wide), values[0], dtype=np.uint8)
    for ring, value in enumerate(values[1:], 1):
        mask[3 * ring : -3 * ring, 3 * ring : -3 * ring] = value
    Image.fromarray(mask).save(path)
    return path


def test_matek_by_the_codes_in_its_names(tmp_path: Path) -> None:
    """As published, a TIFF for each cell in a folder for each code; PMB is dropped, MOB a monocyte."""
    expected = {"BAS": 0, "EBO": 2, "KSC": 12, "LYA": 11, "MOB": 9, "MON": 9, "NGS": 8, "MYO": 3}
    for number, code in enumerate([*expected, "PMB"]):
        put(tmp_path / code / f"{code}_{number:04d}.tiff", colour=20 * number + 10)
    lab = matek(tmp_path, size=16)
    assert lab.classes == UNIFIED
    assert lab.keys == tuple(sorted(f"{code}/{code}_{i:04d}.tiff" for i, code in enumerate(expected)))
    assert [UNIFIED[i] for i in lab.labels] == [UNIFIED[expected[key[:3]]] for key in lab.keys]
    assert lab.images.shape == (8, 3, 16, 16)
    assert lab.images[lab.keys.index("EBO/EBO_0001.tiff"), 0, 8, 8] == 30
    assert lab.masks is None
    assert lab.problems == ()
    assert len(lab.dataset()) == 8


def test_matek_flat_or_by_folders_alone(tmp_path: Path) -> None:
    put(tmp_path / "flat/EOS_1.tiff")
    put(tmp_path / "folders/LYT/0001.tiff")
    assert matek(tmp_path / "flat", size=8).labels.tolist() == [1]
    assert matek(tmp_path / "folders", size=8).labels.tolist() == [10]


def test_acevedo_as_published(tmp_path: Path) -> None:
    """A folder for each class, whose files begin with finer codes; three of these are dropped, hidden files ignored."""
    files = {
        "basophil/BA_1.jpg": 0, "eosinophil/EO_1.jpg": 1, "erythroblast/ERB_1.jpg": 2, "ig/PMY_1.jpg": 4,
        "ig/MY_1.jpg": 5, "ig/MMY_1.jpg": 6, "neutrophil/BNE_1.jpg": 7, "neutrophil/SNE_1.jpg": 8,
        "monocyte/MO_1.jpg": 9, "lymphocyte/LY_1.jpg": 10,
    }  # fmt: skip
    for name in (*files, "ig/IG_1.jpg", "neutrophil/NEUTROPHIL_1.jpg", "platelet/PLATELET_1.jpg"):
        put(tmp_path / name)
    (tmp_path / "neutrophil/.DS_1.jpg").write_bytes(b"of the file manager")
    put(tmp_path / "monocyte/ABC_9.jpg")
    lab = acevedo(tmp_path, size=16)
    assert dict(zip(lab.keys, lab.labels.tolist(), strict=True)) == files
    assert [problem.key for problem in lab.problems] == ["monocyte/ABC_9.jpg"]
    assert "none of the codes BA EO" in lab.problems[0].what


def test_both_sets_share_their_labels(tmp_path: Path) -> None:
    put(tmp_path / "m/NGB/NGB_1.tiff")
    put(tmp_path / "a/neutrophil/BNE_1.jpg")
    assert matek(tmp_path / "m").labels.tolist() == acevedo(tmp_path / "a").labels.tolist()
    assert matek(tmp_path / "m").images.shape[-1] == 224


def bad(folder: Path) -> dict[str, str]:
    """One file of each bad kind in a class folder, and what must be said of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.png").write_bytes(b"")
    (folder / "broken.jpg").write_bytes(put(folder / "broken.jpg").read_bytes()[:200])
    (folder / "text.png").write_text("no image")
    noise = np.random.default_rng(0).integers(0, 255, (18, 20), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "grey.png")
    Image.fromarray(np.dstack([noise] * 4)).save(folder / "alpha.png")
    Image.fromarray(noise.astype(np.uint16) * 200).save(folder / "deep.png")
    put(folder / "tiny.png", size=(7, 7))
    put(folder / "huge.png", size=(9000, 8))
    put(folder / "band.png", size=(100, 10))
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    return {
        "empty.png": "0 bytes", "broken.jpg": "left out", "text.png": "not a readable image; left out",
        "grey.png": "grey-scale", "alpha.png": "alpha channel", "deep.png": "16 bits",
        "tiny.png": "7x7 pixels, expected at least 8", "huge.png": "9000x8", "band.png": "more than 4 to 1",
        "gone.png": "is no file; left out",
    }  # fmt: skip


def test_bad_files_are_named_and_the_run_goes_on(tmp_path: Path) -> None:
    expected = bad(tmp_path / "monocyte")
    put(tmp_path / "monocyte/good.png")
    put(tmp_path / "basophil/good.png")
    put(tmp_path / "astray.png")
    (tmp_path / "monocyte/notes.txt").write_text("no image by its name")
    (tmp_path / "nothing").mkdir()
    lab = class_folders(tmp_path, size=16)
    said = {problem.key: problem.what for problem in lab.problems}
    assert len(said) == len(lab.problems)
    assert set(said) == {f"monocyte/{name}" for name in expected} | {"astray.png", "nothing"}
    for name, what in expected.items():
        assert what in said[f"monocyte/{name}"]
    assert "in no class folder; left out" in said["astray.png"]
    assert "without images" in said["nothing"]
    kept = {f"monocyte/{name}" for name in ("grey.png", "alpha.png", "deep.png", "band.png", "good.png")}
    assert set(lab.keys) == kept | {"basophil/good.png"}
    assert lab.classes == ("basophil", "monocyte")
    assert lab.labels.tolist() == [0, 1, 1, 1, 1, 1]
    check_classes(lab)


def test_masks_beside_the_pictures(tmp_path: Path) -> None:
    """Of three kinds, one of another suffix; and one that is missing, empty, damaged, of another size."""
    masks = tmp_path / "cells/masks"
    for name in ("levels", "white", "small", "missing", "empty", "broken", "other"):
        put(tmp_path / f"cells/monocyte/{name}.jpg")
    put_mask(masks / "monocyte/levels.png", (0, 128, 255))
    put_mask(masks / "monocyte/white.bmp", (0, 255))
    put_mask(masks / "monocyte/small.png", (0, 1, 2))
    put_mask(masks / "monocyte/empty.png", (0,))
    put_mask(masks / "monocyte/other.png", (0, 255), size=(21, 18))
    (masks / "monocyte/broken.png").write_bytes(b"\x89PNG")
    lab = class_folders(tmp_path / "cells", masks, size=18)
    assert lab.classes == ("monocyte",)
    assert lab.masks is not None
    known = {key: mask for key, mask, there in zip(lab.keys, lab.masks, lab.masked, strict=True) if there}
    assert set(known) == {f"monocyte/{name}.jpg" for name in ("levels", "white", "small")}
    assert [known["monocyte/levels.jpg"][9, x].item() for x in (0, 4, 9)] == [0, 1, 2]
    assert [known["monocyte/white.jpg"][9, x].item() for x in (0, 4, 9)] == [0, 1, 1]
    assert torch.equal(known["monocyte/small.jpg"], known["monocyte/levels.jpg"])
    assert (lab.masks[~lab.masked] == VOID).all()
    said = {problem.key: problem.what for problem in lab.problems}
    assert said["monocyte/missing.jpg"] == "has no mask in masks; taken as unknown"
    assert said["monocyte/empty.jpg"] == "has a mask without a cell; taken as unknown"
    assert said["monocyte/other.jpg"] == "has a mask of 21x18 pixels, expected 20x18 as the picture; taken as unknown"
    assert said["monocyte/broken.jpg"] == "has a mask that is not a readable image; taken as unknown"
    assert len(said) == len(lab.problems) == 4


def test_masks_are_resized_as_their_pictures(tmp_path: Path) -> None:
    put(tmp_path / "x/monocyte/a.png", size=(40, 20))
    put_mask(tmp_path / "m/monocyte/a.png", (0, 255), size=(40, 20))
    masks = class_folders(tmp_path / "x", tmp_path / "m", size=20).masks
    assert masks is not None
    expected = torch.zeros(20, 20, dtype=torch.int8)
    expected[3:17, 1:19] = 1  # the third column of 40 falls between two of 20: its nearest is kept or not
    assert (masks[0] != expected).sum() <= 2 * 14


def test_loose_pictures_are_of_unknown_class(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "deep/er/b.jpg")
    put(tmp_path / ".hidden/c.png")
    lab = loose(tmp_path, size=16, name="ward 3")
    assert lab.keys == ("a.png", "deep/er/b.jpg")
    assert lab.labels.tolist() == [UNKNOWN] * 2
    assert (lab.name, lab.classes) == ("ward 3", ())
    with pytest.raises(ValueError, match="unknown class"):
        lab.dataset()


def test_a_folder_with_one_class_is_read_but_not_trained_on(tmp_path: Path) -> None:
    put(tmp_path / "monocyte/a.png")
    with pytest.raises(ValueError, match=r"1 class \(monocyte\).*a folder of its own"):
        check_classes(class_folders(tmp_path, size=16))


@pytest.mark.parametrize("reader", [matek, acevedo, class_folders, loose])
def test_nothing_left_is_an_error(tmp_path: Path, reader: type) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        reader(tmp_path / "absent")
    with pytest.raises(ValueError, match="no images below"):
        reader(tmp_path)
    for name in ("NGS/BA_1.jpg", "NGS/BA_2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"can be read: NGS/BA_1.jpg is empty \(0 bytes\); left out; NGS/BA_2"):
        reader(tmp_path)


def test_impossible_arguments(tmp_path: Path) -> None:
    put(tmp_path / "monocyte/a.png")
    with pytest.raises(ValueError, match="size must be a whole number of at least 8"):
        class_folders(tmp_path, size=2)
    with pytest.raises(FileNotFoundError, match="of masks"):
        class_folders(tmp_path, tmp_path / "absent")


def test_progress_counts_files_in_order(tmp_path: Path) -> None:
    """Decoded in threads, 150 files keep their order, and progress ends at all of them."""
    for number in range(150):
        put(tmp_path / f"c{number % 2}/{number:03d}.png", colour=number + 1, size=(8, 8))
    told: list[tuple[int, int]] = []
    lab = class_folders(tmp_path, size=8, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (150, 150)
    assert lab.images[:, 0, 7, 7].tolist() == [int(Path(key).stem) + 1 for key in lab.keys]


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is readable for the superuser")
def test_files_that_may_not_be_read_are_named(tmp_path: Path) -> None:
    put(tmp_path / "monocyte/a.png")
    put(tmp_path / "monocyte/b.png").chmod(0)
    assert "left out" in class_folders(tmp_path, size=16).problems[0].what


def test_masks_that_cannot_be_of_a_cell_are_named(tmp_path: Path) -> None:
    """Inverted, all white, of values that mean nothing; one of a cell that touches the border is taken."""
    ground = np.zeros((40, 40), dtype=np.uint8)
    cell = ground.copy()
    cell[10:30, 10:30] = 255
    index = (cell > 0).astype(np.uint8)
    index[0, 0] = 3
    corner = ground.copy()
    corner[:30, :30] = 255
    nearly = np.full_like(ground, 255)
    nearly[18:22, :] = 0
    masks = {"inverted": 255 - cell, "white": ground + 255, "index": index, "corner": corner, "nearly": nearly}
    for name, mask in masks.items():
        put(tmp_path / f"x/monocyte/{name}.png", size=(40, 40))
        (tmp_path / "m/monocyte").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / f"m/monocyte/{name}.png")
    lab = class_folders(tmp_path / "x", tmp_path / "m", size=40)
    assert [key for key, known in zip(lab.keys, lab.masked, strict=True) if known] == ["monocyte/corner.png"]
    said = {problem.key.partition("/")[2]: problem for problem in lab.problems}
    assert "covers 100% of the picture's border" in said["inverted.png"].what
    assert "may be inverted" in said["inverted.png"].what
    assert "covers 100% of the picture, " in said["white.png"].what
    assert "covers 95% of the picture's border" in said["nearly.png"].what
    assert "has a mask with values up to 3, expected 0, 1, 2, or grey levels" in said["index.png"].what
    assert {each.severity for each in said.values()} == {Severity.DOUBTFUL}


def test_names_of_one_class_are_joined_and_folders_of_masks_left_out(tmp_path: Path) -> None:
    for name in ("Smudge cell", "smudge_cell", "monocyte", "monocyte/masks", "Masks"):
        put(tmp_path / name / "a.png")
    lab = class_folders(tmp_path, size=16)
    assert lab.classes == ("Smudge cell", "monocyte")
    assert lab.keys == ("Smudge cell/a.png", "monocyte/a.png", "smudge_cell/a.png")
    assert lab.labels.tolist() == [0, 1, 0]
    told = {problem.key: problem.what for problem in lab.problems}
    assert told["smudge_cell"] == "counts as class Smudge cell"
    assert set(told) - {"smudge_cell"} == {"Masks", "monocyte/masks"}
    assert len(class_folders(tmp_path, size=16, without=[tmp_path / "smudge_cell"])) == 2


def test_folders_in_class_folders_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "berlin/monocyte/a.png")
    with pytest.raises(ValueError, match=r"expected LABORATORY/CLASS/IMAGE\. If berlin is a laboratory, name it"):
        class_folders(tmp_path, size=16)
