"""The commands in this process: outcomes, mistakes, interruption."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import acclimate.cli
from acclimate.cli import main
from acclimate.cli.progress import Bars
from acclimate.experiment import read_record
from acclimate.fields import segmentation

ONE = ["run", "tent", "--stream", "digits"]


def mistakes(model: str) -> dict[str, tuple[list[str], str]]:
    own = ["--model", model, "--size", "12"]
    return {
        "command": (["runn"], "Did you mean run?"),
        "no command": ([], "name a command"),
        "method": (["run", "tnet", "--stream", "digits"], "Did you mean tent?"),
        "preset": (["run", "palm:stabel", "--stream", "digits"], "stable"),
        "twice": (["run", "tent", "tent", "--stream", "digits"], "named twice"),
        "no stream": (["run", "tent"], "--stream"),
        "data set": (["run", "tent", "--stream", "digts:continual"], "Did you mean 'digits'?"),
        "setting of stream": (["run", "tent", "--stream", "digits:gradul"], "gradual"),
        "severity": ([*ONE, "--severity", "7"], "severity is 7"),
        "seeds": ([*ONE, *own, "--seeds", "1", "1"], "each of them once"),
        "option": (["run", "tent", "--strem", "digits"], "--stream"),
        "number": ([*ONE, "--size", "many"], "--size"),
        "set without value": ([*ONE, "--set", "tent.learning_rate"], "METHOD.SETTING=VALUE"),
        "set of another": ([*ONE, "--set", "palm.alpha=1"], "not among the methods"),
        "set unknown": ([*ONE, "--set", "tent.learning_rat=1"], "Did you mean learning_rate?"),
        "set word": ([*ONE, "--set", "tent.learning_rate=fast"], "expected a number"),
        "set out of range": ([*ONE, "--set", "tent.learning_rate=-1"], "learning_rate must be"),
        "set object": ([*ONE, "--set", "tent.select=all"], "is set from Python only: Tent(select=...)"),
        "normalization": ([*ONE, "--normalization", "batsch"], "Did you mean batch?"),
        "model": ([*ONE, "--model", "digits-resnte"], "digits-resnet"),
        "model file": ([*ONE, "--model", "nowhere.py:build"], "nowhere.py"),
        "weights": ([*ONE, "--model", model, "--weights", "w.safetensors"], "w.safetensors"),
        "threads": ([*ONE, "--threads", "0"], "--threads"),
        "device": ([*ONE, *own, "--device", "nothing"], "nothing"),
        "resume nowhere": (["run", "--resume", "nowhere"], "no record"),
        "folder": (["run", "tent", "--stream", "folder:/nowhere/photos"], "/nowhere/photos"),
        "source data nobody needs": ([*ONE, *own, "--source-data", "digits"], "none of these does"),
        "no source images": (["run", "eata", "--stream", "digits", *own, "--source-images", "0"], "at least 1"),
        "compare nothing": (["compare"], "folder of a run"),
        "compare nowhere": (["compare", "nowhere"], "no record"),
        "format": (["compare", "x", "--format", "pdf"], "'csv'"),
        "report nowhere": (["report", "nowhere"], "no record"),
        "recipe": (["train", "digits-resnte", "--output", "w.safetensors"], "Did you mean 'digits-resnet'?"),
        "output": (["train", "digits-resnet", "--output", "w.pt"], ".safetensors"),
        "card": (["methods", "tnet"], "Did you mean tent?"),
        "need": (["methods", "--without", "sleep"], "batch-norm"),
        "weights without model": (["doctor", "--weights", "w.safetensors"], "--model"),
        "memory without model": (["doctor", "--memory"], "add --model"),
        "policy without model": (["doctor", "--policy", "exact"], "add --model"),
        "policy without memory": (["doctor", "--model", model, "--policy", "exact"], "add --memory"),
        "policy": (["doctor", "--model", model, "--memory", "--policy", "exakt"], "Did you mean exact?"),
    }


@pytest.mark.parametrize("case", mistakes(""))
def test_mistakes_are_one_line_with_what_to_do(
    case: str, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, hint = mistakes(f"{model_file}:build")[case]
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1, told.err
    assert told.err.startswith("acclimate: ")
    assert hint in told.err
    assert told.out == ""
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(acclimate.cli, "_NEEDS", ("tyro", "a_package_nobody_has"))
    assert main(["methods"]) == 2
    assert capsys.readouterr().err == (
        'acclimate: the command line needs a_package_nobody_has: pip install "acclimate[cli]".\n'
    )


def test_settings_reach_the_record(model_file: Path, tmp_path: Path) -> None:
    options = ["--size", "12", "--corruptions", "contrast", "--model", f"{model_file}:build", "--out", str(tmp_path)]
    changes = ["--set", "tent.learning_rate=1e-4", "tent.steps=2", "--normalization", "alpha", "--answer", "after"]
    assert main([*ONE, *options, *changes]) == 0
    header = read_record(tmp_path).header
    config = header.methods["tent"]["config"]
    assert config["learning_rate"] == 1e-4 and config["steps"] == 2
    assert config["normalization"]["name"] == "alpha"
    assert header.methods["source"]["config"]["normalization"]["name"] == "source"
    assert header.methods["tent"]["cost"]["backwards"] == 2
    assert header.answer == "after"


def test_how_to_compute_reaches_the_record_and_is_kept(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--size", "12", "--corruptions", "contrast", "--model", f"{model_file}:build", "--out", str(tmp_path)]
    assert main([*ONE, *options, "--amp", "--channels-last"]) == 0
    assert "<th>amp</th><td>on</td>" in (tmp_path / "report.html").read_text()
    for other in ("--amp", "--compile"):
        assert main(["run", "--resume", str(tmp_path), other]) == 2
        assert f"{other.strip('-')} was given too" in capsys.readouterr().err
    assert main(["run", "--resume", str(tmp_path)]) == 0
    header = read_record(tmp_path).header
    assert {name: header.environment[name] for name in ("amp", "channels_last", "compile")} == {
        "amp": "on",
        "channels_last": "on",
        "compile": "off",
    }
    assert header.request["amp"] is header.request["channels_last"] is True and header.request["compile"] is False


def test_source_images_come_from_the_training_split_or_a_named_one(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--model", f"{model_file}:build", "--batch-size", "6"]
    digits = ["--stream", "digits:clean", "--size", "12", "--source-images", "30", "--out", str(tmp_path / "digits")]
    assert main(["run", "eata", *digits, *own]) == 0
    source = read_record(tmp_path / "digits").header.methods["eata"]["source"]
    assert (source["dataset"], source["split"], source["images"]) == ("digits", "train", 30)
    for number in range(20):
        folder = tmp_path / "photos" / str(number % 10)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(256, size=(224, 224, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    photos = ["run", "eata", "--stream", f"folder:{tmp_path}/photos:clean", *own, "--out", str(tmp_path / "photo-run")]
    assert main(photos) == 2
    assert "name one with --source-data folder:DIR" in capsys.readouterr().err
    assert main([*photos, "--source-data", f"folder:{tmp_path}/photos"]) == 0
    source = read_record(tmp_path / "photo-run").header.methods["eata"]["source"]
    assert (source["dataset"], source["split"], source["images"]) == ("folder", "train", 20)


def test_an_interrupted_run_is_continued(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    options = ["--size", "12", "--corruptions", "contrast", "--model", f"{model_file}:build", "--seeds", "0", "1"]

    def stop(self, step):
        if step.row.seed == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Bars, "step", stop)
        assert main([*ONE, *options, "--out", str(folder)]) == 130
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert f"acclimate run --resume {folder}" in told
    assert read_record(folder).finished == {("source", 0), ("tent", 0)}
    assert main(["run", "--resume", str(folder), "--size", "5"]) == 2
    assert main(["run", "--resume", str(folder)]) == 0
    assert read_record(folder).complete
    assert (folder / "report.html").is_file()


def test_compare_writes_for_other_programs(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tiny_run), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["method"] for row in rows] == ["source", "bn", "tent"]
    assert main(["compare", str(tiny_run), "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("| error, % | fog | contrast | mean | gain | time |")


@pytest.mark.parametrize("columns", [50, 70, 100, 200])
def test_tables_keep_to_the_width(
    tiny_run: Path, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["compare", str(tiny_run), "--against", "bn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("against bn") for line in lines)
    assert not any("…" in line for line in lines)


def test_report_goes_where_it_is_told(tiny_run: Path, tmp_path: Path) -> None:
    place = tmp_path / "r.html"
    assert main(["report", str(tiny_run), "--output", str(place)]) == 0
    assert "contrast" in place.read_text()


def test_methods_lists_filters_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    assert {"bn", "palm", "source", "tent"} <= set(capsys.readouterr().out.split())
    assert main(["methods", "--without", "backward"]) == 0
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].strip()]
    assert "bn" in first and "tent" not in first
    assert main(["methods", "palm"]) == 0
    page = capsys.readouterr().out
    for word in ("threshold", "palm:stable", "--set palm.learning_rate=...", "AAAI 2025", "2 + 2"):
        assert word in page
    assert main(["methods", "auto"]) == 0
    defaults = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if "--set auto." in line]
    assert ["normalization", "shallow:auto"] in defaults and ["learner", "palm(consistency=0.0)"] in defaults


def test_doctor_looks_into_a_model(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", f"{model_file}:build", "--memory", "--batch", "8"]) == 0
    told = capsys.readouterr().out
    assert "1 BatchNorm2d" in told and "8 features, 10 classes" in told and "a risk" in told
    tent = next(line.split() for line in told.splitlines() if line.startswith("tent"))
    assert tent[1:3] == ["2", "16"]


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_doctor_says_why_a_method_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    path = tmp_path / "plain.py"
    path.write_text("from torch import nn\nmodel = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))\n")
    assert main(["doctor", "--model", f"{path}:model", "--input-size", "3", "2", "2", "--memory"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "has none" in told and "safe" in told


def test_a_method_that_cannot_segment_is_named_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The methods before it have run; it is the one that is named."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, 32, 40), dtype=torch.uint8, generator=generator)
    labels = torch.randint(-1, 11, (4, 32, 40), generator=generator)
    scenes = segmentation.Scenes("camvid", images, labels, segmentation.CAMVID_CLASSES, "test")
    net = nn.Sequential(nn.Conv2d(3, 11, 3, padding=1), nn.BatchNorm2d(11)).eval()
    monkeypatch.setattr(segmentation, "camvid", lambda split, **_: scenes)
    monkeypatch.setattr(segmentation, "source_segmenter", lambda *_, **__: net)
    assert main(["segment", "bn", "eta", "tent", "--rounds", "1", "--size", "2"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("acclimate: eta: rows are chosen by one prediction each: found logits [2, 11, 32, 40]")
    assert told.endswith("; choose a method that takes label maps, such as tent or surgeon.")
    assert main(["segment", "tent", "surgeon", "--rounds", "1", "--size", "2"]) == 0, "as it says"


def test_train_writes_weights_that_run_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "w.safetensors"
    assert main(["train", "digits-resnet", "--output", str(weights), "--epochs", "1", "--threads", "1"]) == 0
    assert str(weights) in capsys.readouterr().out.replace("\n", "")
    options = ["--model", "digits-resnet", "--weights", str(weights), "--size", "12", "--corruptions", "contrast"]
    assert main(["run", "bn", "--stream", "digits", *options, "--out", str(tmp_path / "r")]) == 0
    line = json.loads((tmp_path / "r" / "record.jsonl").read_text().splitlines()[0])
    assert line["model"]["name"] == "digits-resnet"
