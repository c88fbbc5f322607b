"""`acclimate reproduce cosmic`: the tables hold what a separate computation finds, absent data sets are named, and an
interrupted run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from acclimate.cli.app import launch
from acclimate.fields.vision_language import (
    DATASETS,
    Features,
    adapt,
    evaluate,
    load_clip,
    open_images,
    oracle_weights,
    read_features,
    reproduce_cosmic,
    supply,
    text_matrix,
    transfer,
    write_features,
)
from acclimate.fields.vision_language.lineup import ROWS, fitted
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.published import PUBLISHED

from .test_data import pets
from .world import world

COLUMNS = {"imagenet-a": "ImageNet-A", "dtd": "DTD", "imagenet": "ImageNet"}
FEW = ["zero-shot", "tda", "cosmic"]


def drawn(name: str, seed: int, **changes: Any) -> Features:
    made = world(seed, images=36, classes=5, views=3)
    arrays = {"clip": made.views, "text": made.texts, "auxiliary": made.auxiliary, "labels": made.labels}
    return Features(**{**arrays, "logit_scale": made.scale, "name": name, **changes})


@pytest.fixture
def two(tmp_path: Path) -> Path:
    folder = tmp_path / "features"
    write_features(folder / "imagenet-a.safetensors", drawn("imagenet-a", 0))
    write_features(folder / "dtd.npz", drawn("dtd", 1))
    return folder


def table(folder: Path, key: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads((folder / "tables" / f"{key}.json").read_text())["rows"]}


def test_cells_are_what_a_separate_computation_finds(two: Path, tmp_path: Path):
    folder = tmp_path / "run"
    markdown, html = reproduce_cosmic(folder, features=two, methods=FEW, seeds=(0, 3), size=30)
    for key, name, file in (("ood", "imagenet-a", "imagenet-a.safetensors"), ("cross-domain", "dtd", "dtd.npz")):
        features = read_features(two / file, name=name)
        for label in FEW:
            method = fitted(ROWS[label].method, name)
            found = [
                evaluate(
                    adapt(features.model(), method=method, seed=seed), features.batches(seed=seed, size=30, views=views)
                )
                for seed in (0, 3)
                for views in [getattr(method, "views")]  # noqa: B009
            ]
            for part, number in (("", "top1"), ("-late", "late")):
                values = [getattr(outcome, number) for outcome in found]
                row = table(folder, key + part)[ROWS[label].title]
                assert row[COLUMNS[name]] == row["mean of 1"] == fmean(values), (label, part)
                assert row["mean"] is None and row["kind"] == "measured"
            spread = table(folder, key)[f"{ROWS[label].title}, ± seeds"]
            assert spread[COLUMNS[name]] == pytest.approx(stdev([outcome.top1 for outcome in found]))
    text = markdown.read_text()
    assert str(tmp_path) not in text, "no path of this machine"
    assert "36 of" not in text and "30 of 7,500 images, 5 classes, 3 views, features as given" in text
    assert "Absent: ImageNet-Sketch: there is no imagenet-sketch.safetensors" in text and "Absent: DTD" not in text
    assert text.count("## ImageNet and its variants") == text.count("## Ten data sets across domains") == 1
    page = html.read_text()
    assert "Published: CLIP" in page and "http" not in page.replace("http-equiv", "") and "<script" not in page


def test_published_numbers_stand_beside(two: Path, tmp_path: Path):
    reproduce_cosmic(tmp_path / "run", features=two, methods=["zero-shot"])
    for key, group in (("ood", "out-of-distribution"), ("cross-domain", "cross-domain")):
        for backbone, name in (("ViT-B/16", "vit-b-16"), ("RN50", "rn50")):
            rows = table(tmp_path / "run", f"{key}-published-{name}")
            assert {name.removesuffix(" †") for name in rows} == set(PUBLISHED[group][backbone])
            assert {name for name in rows if "†" in name} == {"COSMIC †", "DMN-ZS †"}
            assert all(row["kind"] == "published" for row in rows.values())
    vit = table(tmp_path / "run", "ood-published-vit-b-16")
    assert vit["COSMIC †"]["ImageNet-A"] == "73.32 ± 0.32" and vit["COSMIC †"]["mean of 1"] == "73.32"
    assert vit["BoostAdapter"]["ImageNet-A"] is None and vit["BoostAdapter"]["mean of 1"] is None


def test_the_oracle_stands_apart(two: Path, tmp_path: Path):
    """Its rows are in tables of their own, marked; all other tables are the same without it."""
    write_features(two / "imagenet.npz", drawn("imagenet", 2))
    reproduce_cosmic(tmp_path / "with", features=two, methods=["cosmic", "cosmic:oracle", "cosmic:transfer"])
    reproduce_cosmic(tmp_path / "without", features=two, methods=["cosmic"])
    for key in ("ood", "cross-domain", "ood-late", "cross-domain-late"):
        assert (tmp_path / "with/tables" / f"{key}.json").read_text() == (
            tmp_path / "without/tables" / f"{key}.json"
        ).read_text()
    assert not list((tmp_path / "without/tables").glob("*oracle*"))
    assert "ORACLE" not in (tmp_path / "without/reproduce.md").read_text()
    grids = {}
    for name, file in (("imagenet", "imagenet.npz"), ("imagenet-a", "imagenet-a.safetensors"), ("dtd", "dtd.npz")):
        features, method = read_features(two / file, name=name), fitted(COSMIC(), name)
        grids[name] = oracle_weights(features.model(), features.batches(), method)  # type: ignore[arg-type]
    oracle = {
        **table(tmp_path / "with", "ood-oracle"),
    }
    cross = table(tmp_path / "with", "cross-domain-oracle")
    (marked,) = [name for name in oracle if "ORACLE" in name]
    (moved,) = [name for name in oracle if name != marked]
    assert moved == "cosmic, weights chosen on labels of ImageNet"
    for name, rows in (("imagenet", oracle), ("imagenet-a", oracle), ("dtd", cross)):
        assert rows[marked][COLUMNS[name]] == grids[name].top1(grids[name].best)
        expected = None if name == "imagenet" else transfer(grids["imagenet"], grids[name])
        assert rows[moved][COLUMNS[name]] == expected
    weights = table(tmp_path / "with", "ood-oracle-weights")
    assert weights[marked]["ImageNet-A"] == ", ".join(f"{weight:g}" for weight in grids["imagenet-a"].best)
    assert all("ORACLE" in name for name in weights)


def test_a_group_without_data_has_no_table_of_the_oracle(two: Path, tmp_path: Path):
    (two / "imagenet-a.safetensors").unlink()
    markdown, _ = reproduce_cosmic(tmp_path / "run", features=two, methods=["cosmic:oracle", "cosmic:transfer"])
    written = {path.stem for path in (tmp_path / "run/tables").glob("*oracle*.json")}
    assert written == {"cross-domain-oracle", "cross-domain-oracle-weights"}
    assert markdown.read_text().count("The ORACLE's weights") == 1


def test_names_that_repeat_as_in_imagenet_are_run(two: Path, tmp_path: Path):
    names = ("missile", "missile", "tench", "crane", "sunglasses")
    write_features(two / "imagenet.npz", drawn("imagenet", 2, classes=names, repeats=True))
    reproduce_cosmic(tmp_path / "run", features=two, methods=["zero-shot"])
    assert table(tmp_path / "run", "ood")[ROWS["zero-shot"].title]["ImageNet"] is not None


def test_an_interrupted_run_goes_on(two: Path, tmp_path: Path):
    folder = tmp_path / "run"
    told: list[tuple[int, int, str]] = []

    def stop(done: int, total: int, note: str) -> None:
        told.append((done, total, note))
        if "DTD, tda" in note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce_cosmic(folder, features=two, methods=FEW, progress=stop)
    assert told[:2] == [(0, 36, "ImageNet-A, zero-shot, seed 0"), (36, 36, "ImageNet-A, zero-shot, seed 0")]
    kept = {path: path.stat().st_mtime_ns for path in (folder / "trials").rglob("*.json")}
    assert len(kept) == 4 and not (folder / "reproduce.md").exists()
    told.clear()
    reproduce_cosmic(folder, features=two, methods=FEW, progress=lambda *step: told.append(step))
    assert {note for *_, note in told} == {"DTD, tda, seed 0", "DTD, cosmic, seed 0"}
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    before = {path.name: path.read_text() for path in folder.glob("tables/*.json")}
    told.clear()
    reproduce_cosmic(folder, features=two, methods=FEW, progress=lambda *step: told.append(step))
    assert not told and before == {path.name: path.read_text() for path in folder.glob("tables/*.json")}
    broken = next((folder / "trials" / "dtd").glob("tda-*"))
    broken.write_text("{")
    write_features(two / "imagenet-a.safetensors", drawn("imagenet-a", 5))
    reproduce_cosmic(folder, features=two, methods=FEW, progress=lambda *step: told.append(step))
    assert {note.partition(", seed")[0] for *_, note in told} == {
        "DTD, tda", *(f"ImageNet-A, {label}" for label in FEW)
    }, "a broken file, and features that are others"  # fmt: skip


def test_a_row_that_cannot_run_is_told(two: Path, tmp_path: Path):
    write_features(two / "dtd.npz", drawn("dtd", 1, auxiliary=None))
    markdown, _ = reproduce_cosmic(
        tmp_path / "run", features=two, methods=["zero-shot", "zero-shot:plain", "cosmic", "cosmic:without-auxiliary"]
    )
    text = markdown.read_text()
    assert "cosmic did not run on DTD: this method looks at auxiliary features" in text
    assert "zero-shot:plain did not run on ImageNet-A" in text
    rows = table(tmp_path / "run", "cross-domain")
    assert list(rows) == [ROWS["zero-shot"].title, ROWS["cosmic:without-auxiliary"].title]


def test_files_that_do_not_fit_are_absent(two: Path, tmp_path: Path):
    write_features(two / "pets.npz", drawn("pets", 1, labels=None))
    (two / "cars.npz").write_bytes(b"broken")
    text = reproduce_cosmic(tmp_path / "run", features=two, methods=["zero-shot"])[0].read_text()
    assert "Absent: Pets" in text and "has no labels" in text and "Absent: Cars" in text and "not a whole .npz" in text


def test_bad_choices(two: Path, tmp_path: Path):
    cases: list[tuple[dict[str, Any], str]] = [
        ({"methods": ["cosmos"]}, "no vision-language method 'cosmos'"),
        ({"seeds": ()}, "at least one"),
        ({"seeds": (1, 1)}, "each of them once"),
        ({"weights_from": "imagenet-b"}, "no data set 'imagenet-b'"),
        ({"size": 0}, "size must be a whole number"),
    ]
    for options, told in cases:
        with pytest.raises(ValueError, match=told):
            reproduce_cosmic(tmp_path / "run", features=two, **options)
    with pytest.raises(FileNotFoundError, match="none of the 15 data sets is there"):
        reproduce_cosmic(tmp_path / "run", features=tmp_path)


def test_the_command(two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path))
    command = ["reproduce", "cosmic", "--features", str(two), "--methods", *FEW, "--size", "20", "--seeds", "1"]
    assert launch([*command, "--out", str(tmp_path / "run")]) == 0
    assert "reproduce.html" in capsys.readouterr().out
    assert set(table(tmp_path / "run", "ood")) == {ROWS[name].title for name in FEW}
    for options, told in [
        (["reproduce", "cosmic", "--out", str(tmp_path / "tiny")], "acclimate train clip-tiny"),
        (["reproduce", "cosmic", "--model", "x"], "cosmic without --data and --features does not take --model"),
        ([*command, "--benchmark", "digits"], "cosmic does not take --benchmark. It takes --out, --features"),
        ([*command, "--jobs", "2"], "cosmic does not take --jobs"),
        (["reproduce", "palm", "--views", "2"], "palm does not take --views"),
        (["reproduce", "surgeon", "--features", "x"], "acclimate reproduce cosmic"),
    ]:
        assert launch(options) == 2
        assert told in capsys.readouterr().err


class Eyes(nn.Module):
    """An encoder of images that knows red shades, with the attributes of the real ones."""

    logit_scale = 20.0

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.project = nn.Linear(3, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(x.mean((2, 3)))

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        shades = {"maine coon": 0.0, "pug": 60 / 255, "beagle": 120 / 255}
        found = [next(shade for name, shade in shades.items() if name in text) for text in texts]
        return self.project(torch.tensor([[shade, 0.0, 1.0] for shade in found]))

    def preprocess(self, picture: Image.Image) -> torch.Tensor:
        red, green, blue = picture.getpixel((0, 0))  # type: ignore[misc]
        return torch.tensor([red, green, blue]).float().div(255)[:, None, None].expand(3, 8, 8)


def test_images_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From a folder of data sets, by the way of files of features, which are kept; a damaged image is told."""
    loads: list[object] = []

    def encoders(self: supply.Supply) -> tuple[Eyes, Eyes]:
        loads.append(self)
        return Eyes(16), Eyes(8)

    monkeypatch.setattr(supply.Supply, "_encoders", property(encoders))
    (pets(tmp_path) / "oxford_pets" / "images" / "a" / "3.png").write_bytes(b"no image")
    (tmp_path / "cuts").mkdir()
    (tmp_path / "cuts" / "pets.json").write_text(json.dumps({
        "maine_coon": ["A maine coon sheds."], "pug": ["A pug snores."], "beagle": ["A beagle barks."],
    }))  # fmt: skip
    told: list[str] = []
    options: dict[str, Any] = {
        "data": tmp_path, "methods": ["zero-shot", "zero-shot:plain", "cosmic"], "views": 2, "model": "clip",
        "auxiliary": "dino", "descriptions": tmp_path / "cuts", "progress": lambda done, total, note: told.append(note),
    }  # fmt: skip
    markdown, _ = reproduce_cosmic(tmp_path / "run", **options)
    text = markdown.read_text()
    assert "3 of 3,669 images, 3 classes, 2 views, encoded by clip and dino" in text
    assert "templates and descriptions 'pets', 1 files left out, which are missing or damaged" in text
    assert table(tmp_path / "run", "cross-domain")[ROWS["zero-shot"].title]["Pets"] == 100
    assert "encoding pets" in told and len(loads) == 2
    (file,) = (tmp_path / "run" / "features").iterdir()
    found = read_features(file)
    assert found.views == 2 and found.simple is not None and found.classes == ("maine coon", "pug", "beagle")
    told.clear()
    reproduce_cosmic(tmp_path / "run", **options)
    assert not told and len(loads) == 2, "neither encoded nor loaded again"
    reproduce_cosmic(tmp_path / "run", **{**options, "views": 1})
    assert "encoding pets" in told and len(list((tmp_path / "run" / "features").iterdir())) == 2
    assert DATASETS["pets"].size == 3669


def test_encoders_that_cannot_be_loaded_stop_the_run(tmp_path: Path):
    pets(tmp_path)
    with pytest.raises((ValueError, ImportError), match=r"no folder|transformers"):
        reproduce_cosmic(tmp_path / "run", data=tmp_path, model=str(tmp_path / "none"), auxiliary="none")


def test_published_encoders_from_images_to_the_page(
    tmp_path: Path, clip_folder: Path, registers_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Tiny checkpoints with random weights, through the real loaders and the command."""
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    options = ["--model", str(clip_folder), "--auxiliary", str(registers_folder), "--views", "2"]
    command = ["reproduce", "cosmic", "--data", str(pets(tmp_path / "sets")), *options, "--out", str(tmp_path / "run")]
    assert launch([*command, "--methods", "zero-shot", "zero-shot:plain", "cosmic", "cosmic:oracle"]) == 0
    (file,) = (tmp_path / "run" / "features").iterdir()
    found, clip = read_features(file, name="pets"), load_clip(clip_folder)
    images = open_images("pets", tmp_path / "sets")
    (batch,) = images.batches(clip.preprocess, seed=None)
    with torch.no_grad():
        own = nn.functional.normalize(clip(batch.images), dim=1)
    text = text_matrix(clip.encode_text, images.classes, templates="pets")
    assert torch.allclose(found.clip[:, 0].float(), own, atol=2e-3) and torch.allclose(found.text, text, atol=1e-5)
    assert found.auxiliary is not None and found.auxiliary.shape[1] == 32
    assert found.logit_scale == pytest.approx(clip.logit_scale, rel=1e-5)
    top1 = evaluate(adapt(found.model(), method="zero-shot"), found.batches()).top1
    assert table(tmp_path / "run", "cross-domain")[ROWS["zero-shot"].title]["Pets"] == top1
    assert "cross-domain-oracle" in {path.stem for path in (tmp_path / "run" / "tables").iterdir()}


def test_tables_are_written_where_the_oracle_did_not_run_on_all(two: Path, tmp_path: Path):
    """A data set without auxiliary features."""
    write_features(two / "imagenet.npz", drawn("imagenet", 2))
    write_features(two / "dtd.npz", drawn("dtd", 1, auxiliary=None))
    methods = ["zero-shot", "cosmic:oracle", "cosmic:transfer"]
    markdown, _ = reproduce_cosmic(tmp_path / "run", features=two, methods=methods)
    assert "cosmic:oracle did not run on DTD: this method looks at auxiliary features" in markdown.read_text()
    rows = table(tmp_path / "run", "ood-oracle")
    assert len(rows) == 2 and all(row["ImageNet-A"] is not None for row in rows.values())
    assert table(tmp_path / "run", "cross-domain")[ROWS["zero-shot"].title]["DTD"] is not None


def test_one_damaged_file_is_told_and_the_others_are_run(two: Path, tmp_path: Path):
    """Its bytes are packed, and some of them are others."""
    packed = two / "pets.npz"
    clip = np.random.default_rng(0).random((600, 24))
    np.savez_compressed(packed, clip=clip, text=np.ones((4, 24)), logit_scale=np.array(50.0))
    data = bytearray(packed.read_bytes())
    data[60:72] = bytes(byte ^ 0x5A for byte in data[60:72])
    packed.write_bytes(data)
    markdown, _ = reproduce_cosmic(tmp_path / "run", features=two, methods=["zero-shot"])
    assert "Absent: Pets: --features/pets.npz is not a whole .npz file" in markdown.read_text()
    assert table(tmp_path / "run", "cross-domain")[ROWS["zero-shot"].title]["DTD"] is not None


def test_names_that_repeat_where_they_do_not_in_the_data_set_are_told(two: Path, tmp_path: Path):
    names = ("banded", "banded", "dotted", "lined", "woven")
    write_features(two / "dtd.npz", drawn("dtd", 1, classes=names, repeats=True))
    markdown, _ = reproduce_cosmic(tmp_path / "run", features=two, methods=["zero-shot"])
    assert "Absent: DTD: --features/dtd.npz: 'dtd': found class names more than once: banded" in markdown.read_text()


@pytest.mark.parametrize("made", [True, False])
def test_descriptions_that_are_of_no_data_set_are_told(two: Path, tmp_path: Path, made: bool):
    if made:
        (tmp_path / "cupl").mkdir()
        (tmp_path / "cupl" / "DTD_prompts.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no descriptions in .*cupl, expected files such as"):
        reproduce_cosmic(tmp_path / "run", features=two, methods=["zero-shot"], descriptions=tmp_path / "cupl")


def test_a_folder_of_few_letters_is_not_found_in_words(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(two.parent)
    (two.parent / "sets").mkdir()
    markdown, _ = reproduce_cosmic("od", data="sets", features="features", methods=["zero-shot", "cosmic:oracle"])
    text = markdown.read_text()
    assert "Food: there is no Food in --data, expected a folder 'food-101'" in text and "--out" not in text
    assert "features as given" in text


@pytest.mark.parametrize("device", ["nope", "cuda:99"])
def test_a_device_that_is_not_there_is_told(two: Path, tmp_path: Path, device: str):
    with pytest.raises(ValueError, match=f"the device '{device}' cannot be used here"):
        reproduce_cosmic(tmp_path / "run", features=two, methods=["zero-shot"], device=device)
