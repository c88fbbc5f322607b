"""`acclimate reproduce`: outcomes, mistakes, interruption."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from acclimate.cli import main
from acclimate.cli.trials import Ticker

SURGEON = ["reproduce", "surgeon", "--benchmark", "digits", "--size", "24", "--batch-size", "12", "--jobs", "1"]
ONE = ["reproduce", "palm", "--benchmark", "digits", "--tables", "1", "--size", "12", "--jobs", "1"]


def mistakes(model: str) -> dict[str, tuple[list[str], str]]:
    return {
        "no paper": (["reproduce"], "PAPER"),
        "paper": (["reproduce", "tent"], "palm"),
        "table": (["reproduce", "palm", "--tables", "9"], "variants"),
        "benchmark": (["reproduce", "palm", "--benchmark", "mnist"], "cifar10c"),
        "method": ([*ONE, "--methods", "tnet"], "Did you mean tent?"),
        "size": ([*ONE[:-4], "--size", "0"], "size is 0"),
        "more images than there are": ([*ONE[:-4], "--size", "5000"], "797"),
        "seeds": ([*ONE, "--seeds", "1", "1"], "each of them once"),
        "jobs": ([*ONE[:-2], "--jobs", "0"], "--jobs is 0"),
        "threads": ([*ONE, "--threads", "0"], "--threads is 0"),
        "device": ([*ONE, "--device", "nothing"], "nothing"),
        "model": ([*ONE, "--model", "digits-resnte"], "digits-resnet"),
        "weights": ([*ONE, "--model", model, "--weights", "w.safetensors"], "w.safetensors"),
        "no data": (["reproduce", "palm", "--benchmark", "cifar10c"], "cifar10c"),
        "scenes of palm": (["reproduce", "palm", "--benchmark", "camvid"], "acclimate reproduce surgeon"),
        "what scenes do not take": (["reproduce", "surgeon", "--benchmark", "camvid", "--jobs", "2"], "--jobs"),
        "table of the other": (["reproduce", "surgeon", "--tables", "1"], "There are: memory"),
        "two addresses": ([*ONE, "--model", model, "--ray", "a", "b"], "one address"),
    }


@pytest.mark.parametrize("case", mistakes(""))
def test_mistakes_are_one_line_and_leave_nothing(
    case: str, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, hint = mistakes(f"{model_file}:build")[case]
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1, told.err
    assert hint in told.err
    assert told.out == "" and not list(tmp_path.iterdir())


def test_interrupted_and_continued_by_the_same_command(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ONE, "--model", f"{model_file}:build", "--methods", "source", "bn", "tent", "--out", str(tmp_path)]

    def stop(self: Ticker, done: int, *_) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ticker, "tick", stop)
        assert main(command) == 130
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1 and "same command continues" in told
    assert len(list((tmp_path / "trials").iterdir())) == 2
    assert main([*command, "--write-only"]) == 0
    assert len(list((tmp_path / "trials").iterdir())) == 2
    capsys.readouterr()
    assert main(command) == 0
    told = capsys.readouterr()
    assert [line.split()[1] for line in told.err.splitlines()] == ["3/3"]
    assert "tent on digits:continual, seed 0" in told.err
    assert f"tables  {tmp_path / 'reproduce.md'}" in told.out
    text = (tmp_path / "reproduce.md").read_text()
    assert "| source |" in text and "| tent |" in text and "my_model.py:build" in text
    assert str(model_file.parent) not in "".join(line for line in text.splitlines(True) if "Written by" not in line)


def test_a_method_that_cannot_run_is_told_at_the_end(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flat.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))\n"
    )
    model = f"{tmp_path / 'flat.py'}:build"
    assert main([*ONE, "--model", model, "--methods", "source", "palm", "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "palm-" in told and "did not run" in told
    assert "palm:cifar10-c did not run" in (tmp_path / "run/reproduce.md").read_text()


def test_a_table_that_there_is_not_and_a_folder_without_trials(tmp_path, capsys):
    for options, told in (
        (["--tables", "9"], "there is no table '9' of palm"),
        (["--figures", "1"], "There are: 2, 3"),
        (["--write-only", "--out", str(tmp_path / "mistyped")], "there are no trials in"),
    ):
        assert main(["reproduce", "palm", "--benchmark", "digits", *options]) != 0
        assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "mistyped").exists()


def test_surgeons_comparison_from_the_command_line(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*SURGEON, "--model", f"{model_file}:build", "--out", str(tmp_path)]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "surgeon:cifar10-c (certain=False, consistency=0.0, memory=stock) on digits:continual, seed 0" in told.err
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "tables/table-memory.csv").read_text().splitlines())}
    text = (tmp_path / "reproduce.md").read_text()
    assert len(rows) == 19
    assert all(row["mean"] or f"{name} did not run: " in text for name, row in rows.items())
    assert sum(bool(row["mean"]) for row in rows.values()) >= 17
    for name in ("tent", "full tuning"):
        assert float(rows[name]["of stock"]) == 1.0 and float(rows[name]["held, MB"]) > 0
    for name in ("tent, exact", "tent, 4-bit", "full tuning, 4-bit", "surgeon", "surgeon-bn"):
        assert float(rows[name]["of stock"]) < 1
    assert rows["surgeon"]["published"] == "" and "no published numbers" in text
    assert "figures/figure-peak.png" in text
    assert main([*command, "--write-only", "--tables", "memory"]) == 0
    assert "figures/figure-peak.png" not in (tmp_path / "reproduce.md").read_text()


def test_scenes_are_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import acclimate.fields.segmentation as field

    asked: dict[str, object] = {}

    def reproduce_camvid(folder: Path, **options: Any) -> tuple[Path, Path]:
        asked.update(options, folder=folder)
        options["progress"](1, 2, "tent")
        return folder / "reproduce.md", folder / "reproduce.html"

    monkeypatch.setattr(field, "reproduce_camvid", reproduce_camvid)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    command = ["reproduce", "surgeon", "--benchmark", "camvid"]
    assert main([*command, "--size", "3", "--seeds", "1", "2", "--methods", "tent"]) == 0
    assert asked.pop("progress") is not None
    assert asked == {
        "folder": Path("runs/reproduce-surgeon-camvid"), "weights": None, "data": None, "size": 3, "seeds": (1, 2),
        "methods": ("tent",), "device": "cpu",
    }  # fmt: skip
    assert "reproduce.html" in capsys.readouterr().out
