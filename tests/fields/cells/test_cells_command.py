"""`acclimate cells`: from folders of pictures to a model, answers, codes and a page."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate.cli import main
from acclimate.fields.cells.data.made_up import made_up

torch.set_num_threads(1)

ODD = {
    "broken.png": "is not a readable image; left out",
    "empty.png": "is empty (0 bytes); left out",
    "tiny.png": "is 4x4 pixels, expected at least 8 a side; left out",
    "grey.png": "is grey-scale, repeated in three channels",
    "alpha.png": "has an alpha channel, laid over white",
    "deep.png": "has 16 bits, scaled by 65535; is grey-scale, repeated in three channels",
    "long.png": "is 200x20 pixels, more than 4 to 1",
    "blank.png": "is of one colour, it shows no cell",
}


def lay(folder: Path, seed: int, count: int, masks: Path | None = None) -> Path:
    """A laboratory as files: FOLDER/CLASS/IMAGE, and its masks."""
    lab = made_up(count, seed, palettes=1, size=64)["made-up-1"]
    for i, (image, label, mask) in enumerate(zip(lab.images, lab.labels, lab.masks, strict=True)):
        name = f"{lab.classes[label]}/{i:03d}.png"
        for path, pixels in ((folder, image.permute(1, 2, 0)), (masks, (mask * 127).to(torch.uint8))):
            if path is not None:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.numpy()).save(path / name)
    return folder


def lay_odd(folder: Path) -> Path:
    """All that can be wrong with a file, beside twenty good ones."""
    lay(folder, 5, 20)
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (20, 200, 4), dtype=np.uint8)
    (folder / "broken.png").write_bytes(b"no image at all")
    (folder / "empty.png").write_bytes(b"")
    Image.fromarray(noise[:4, :4, :3]).save(folder / "tiny.png")
    Image.fromarray(noise[:, :20, 0]).save(folder / "grey.png")
    Image.fromarray(noise[:, :20]).save(folder / "alpha.png")
    Image.fromarray(random.integers(0, 65536, (20, 20)).astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(noise[..., :3]).save(folder / "long.png")
    Image.new("RGB", (20, 20), (200, 150, 150)).save(folder / "blank.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `berlin` (with masks), `quito`, `odd`, and a trained `model`."""
    root = tmp_path_factory.mktemp("desk")
    lay(root / "berlin", 0, 40, root / "masks/berlin")
    lay(root / "quito", 1, 24)
    (root / "quito/neutrophil/scribble.png").write_bytes(b"no image")
    lay_odd(root / "odd")
    folders = [str(root / "berlin"), str(root / "quito"), "--masks", str(root / "masks")]
    options = ["--out", str(root / "model"), "--size", "unit", "--epochs", "1", "--method", "none", "--error", "0.3"]
    assert main(["cells", "train", *folders, *options, "--threads", "1"]) == 0
    return root


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["cells", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["cells", *map(str, arguments)]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1 and told.startswith("acclimate: ")
    return told


def test_training_tells_what_was_odd_and_what_is_promised(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again finds all stages done; another classifier needs no new encoder."""
    before = {path.name: path.stat().st_mtime_ns for path in (place / "model/stages").iterdir()}
    folders = [place / "berlin", place / "quito", "--masks", place / "masks", "--out", place / "model"]
    options = ["--size", "unit", "--epochs", "1", "--method", "none", "--error", "0.3", "--classifier", "svm-linear"]
    out = said(capsys, "train", *folders, *options)
    assert "quito: neutrophil/scribble.png is not a readable image; left out" in out
    assert f"quito: has no folder of its name in {place / 'masks'}" in out
    with (place / "model/problems.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == ["quito", "neutrophil/scribble.png"]
    assert "held out  12 cells" in out and "cell is" in out
    assert before == {path.name: path.stat().st_mtime_ns for path in (place / "model/stages").iterdir()}
    said(capsys, "train", *folders, *options[:-2])


def test_classify_names_every_picture_and_goes_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "classify", place / "model", place / "odd", "--out", place / "answers.csv")
    with (place / "answers.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert len(rows) == 20 + len(ODD)
    for name, what in ODD.items():
        assert rows[name]["problem"].startswith(what)
    unread = [name for name, what in ODD.items() if what.endswith("left out")]
    assert {name for name, row in rows.items() if not row["class"]} == set(unread)
    for name, row in rows.items():
        if name in unread:
            continue
        each = [float(value) for key, value in row.items() if key.startswith("p(")]
        assert sum(each) == pytest.approx(1, abs=1e-5) and float(row["probability"]) == max(each)
        assert row["unsure"] in ("yes", "no")
    unsure = sum(row["unsure"] == "yes" for row in rows.values())
    assert out.startswith(f"25 cells, {unsure} of them unsure")
    assert "3 pictures without an answer, since the file could not be read: broken.png, empty.png, tiny.png" in out
    assert rows["blank.png"]["unsure"] == "yes"
    with (place / "answers-problems.csv").open(newline="", encoding="utf-8") as file:
        assert {row["picture"] for row in csv.DictReader(file)} >= set(ODD)
    assert f"problems are in {place / 'answers-problems.csv'}" in out
    again = said(capsys, "classify", place / "model", place / "berlin", "--out", place / "answers.csv")
    assert (place / "answers-problems.csv").is_file() == ("problems are in" in again)


def test_a_folder_of_damaged_files_does_not_stop_the_others(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rot").mkdir()
    (tmp_path / "rot/a.png").write_bytes(b"no image")
    (tmp_path / "nil").mkdir()
    folders = [tmp_path / "rot", tmp_path / "nil"]
    out = said(capsys, "classify", place / "model", *folders, place / "quito", "--out", tmp_path / "a.csv")
    assert "Nothing in 'rot' can be read" in out and "24 cells, " in out
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert len(lines) == 1 + 24 + 1 + 2 and lines[-2].startswith("a.png,rot,,") and lines[-1].startswith("nil,nil,,")
    said(capsys, "report", place / "model", *folders, place / "quito", "--out", tmp_path / "a.html")
    assert "a.png" in (tmp_path / "a.html").read_text(encoding="utf-8")
    told = refused(capsys, "classify", place / "model", *folders, "--out", tmp_path / "b.csv")
    assert "Nothing in 'rot' can be read" in told and "no images below" in told
    assert (tmp_path / "b.csv").read_text().splitlines() == lines[:1] + lines[-2:]
    refused(capsys, "embed", place / "model", *folders, "--out", tmp_path / "b.npz")
    assert not (tmp_path / "b.npz").exists()


def test_embed_writes_codes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "embed", place / "model", place / "quito", "--out", place / "codes.npz")
    assert out.startswith("24 cells.\n1 picture without a code, since the file could not be read: neutrophil/")
    assert "unsure" not in out and "answer" not in out
    with np.load(place / "codes.npz", allow_pickle=False) as stored:
        assert stored["codes"].shape == (24, 48) and stored["codes"].dtype == np.float32
        assert stored["unread"][:, 1].tolist() == ["neutrophil/scribble.png"]
        told = [stored["classes"][label] for label in stored["labels"]]
        assert told == [key.partition("/")[0] for key in stored["keys"].tolist()]
    said(capsys, "embed", place / "model", place / "quito", place / "odd", "--out", place / "codes.csv")
    assert len((place / "codes.csv").read_text().splitlines()) == 1 + 24 + 25 + 4


def test_report_is_one_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "report", place / "model", place / "berlin", place / "odd", "--out", place / "report.html")
    assert "written to" in out
    html = (place / "report.html").read_text(encoding="utf-8")
    assert "http" not in html.replace("http://www.w3.org", "") and "Confusion" in html
    assert "broken.png" in html and "Answered lymphocyte" in html


def test_mistakes_are_told_in_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lay(tmp_path / "one", 2, 20)
    for name in ("lymphocyte", "monocyte", "eosinophil"):
        (tmp_path / "one" / name).rename(tmp_path / name)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "masks/one/neutrophil").mkdir(parents=True)
    Image.new("L", (9, 9), 255).save(tmp_path / "masks/one/neutrophil/000.png")
    new, model = ["--out", "new"], str(place / "model")
    assert "1 class (neutrophil), expected two classes or more" in refused(capsys, "train", "one", *new)
    assert "no images below nothing" in refused(capsys, "train", "nothing", *new)
    assert "no folder nowhere" in refused(capsys, "train", "nowhere", *new)
    assert "--masks MASKS" in refused(capsys, "train", place / "quito", *new)
    told = refused(capsys, "train", "one", place / "quito", "--masks", "masks", *new)
    assert "--masks MASKS" in told and "has a mask of 9x9 pixels, expected 64x64 as the picture" in told
    assert "name a FOLDER" in refused(capsys, "train", *new)
    for option, value in (("--most", "0"), ("--most", "-1"), ("--epochs", "0"), ("--seed", "-1")):
        assert f"{option} must be a whole number" in refused(capsys, "train", "nowhere", *new, option, value)
    assert "--error is 5" in refused(capsys, "train", "nowhere", *new, "--error", "5")
    assert "--classifier" in refused(capsys, "train", "nowhere", *new, "--classifier", "foo")
    assert "--threads is 0" in refused(capsys, "train", place / "quito", *new, "--threads", "0")
    assert "acclimate cells train FOLDER" in refused(capsys, "classify", "one", place / "quito", "--out", "a.csv")
    assert "ends in .csv" in refused(capsys, "classify", model, place / "quito", "--out", "a.xlsx")
    assert "ends in .npz or .csv" in refused(capsys, "embed", model, place / "quito", "--out", "codes.pt")
    assert "no images below nothing" in refused(capsys, "report", model, "nothing", "--out", "a.html")
    assert "name a FOLDER" in refused(capsys, "report", model, "--out", "a.html")
    assert not (tmp_path / "new").exists()


def test_a_second_word_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs a second word" in refused(capsys)
    assert "no command 'cells trian'" in refused(capsys, "trian")
    with pytest.raises(AssertionError):
        said(capsys, "trian")
    assert main(["cells", "--help"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        "train",
        "embed",
        "classify",
        "report",
    ]


def test_an_interrupted_training_says_how_to_go_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("acclimate.fields.cells.desk.training.train_encoder", stop)
    arguments = [
        str(place / "berlin"),
        "--masks",
        str(place / "masks"),
        "--size",
        "unit",
        "--out",
        str(tmp_path / "new"),
    ]
    assert main(["cells", "train", *arguments]) == 130
    assert "the same command continues" in capsys.readouterr().err
