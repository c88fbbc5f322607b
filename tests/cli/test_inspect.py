"""`acclimate inspect collapse` in this process: what it writes, how it continues, mistakes in one line."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from acclimate.cli import main
from acclimate.cli.app import parse
from acclimate.cli.inspect import Inspect
from acclimate.cli.progress import Bars

SMALL = ["--size", "24", "--batch-size", "12", "--corruptions", "fog", "contrast", "--threads", "1"]


def test_a_whole_inspection(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = ["--model", f"{model_file}:build", "--severities", "0", "5"]
    assert main(["inspect", "collapse", "nctta", "tent", *SMALL, *own]) == 0
    told = capsys.readouterr().out
    for severity in (0, 5):
        for label in ("source", "nctta", "tent"):
            assert f"severity {severity}, {label}" in told
    assert "Without adaptation" in told and "With nctta" in told and "With tent" in told
    folder = tmp_path / "runs" / "collapse-digits"
    for name in ("collapse.md", "collapse.html", "collapse.json", "figures/collapse.png", "tables/collapse.csv"):
        assert (folder / name).stat().st_size > 0, name
        assert name.startswith("tables") or name == "collapse.json" or name in told
    whole = json.loads((folder / "collapse.json").read_text("utf-8"))
    assert whole["methods"]["nctta"]["name"] == "nctta"
    assert whole["source"]["samples"] == 1000
    assert len(whole["levels"]) == 6
    assert main(["inspect", "collapse", "nctta", "tent", *SMALL, *own, "--seed", "1"]) == 2
    refused = capsys.readouterr().err
    assert len(refused.splitlines()) == 1 and "--out" in refused and "severity 5, tent" in refused
    assert json.loads((folder / "collapse.json").read_text("utf-8")) == whole
    assert len(list((folder / "levels").iterdir())) == 6


def test_it_continues(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["inspect", "collapse", "bn", *SMALL, "--model", f"{model_file}:build", "--severities", "0", "5"]
    out = tmp_path / "out"
    seen: list[str] = []

    def stop(self: Bars, description: str, done: int, total: int, note: str) -> None:
        seen.append(note)
        if note.startswith("severity 5"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Bars, "show", stop)
        assert main([*arguments, "--out", str(out)]) == 130
    assert "The same command continues." in capsys.readouterr().err
    assert len(list((out / "levels").iterdir())) == 2
    seen.clear()
    monkeypatch.setattr(Bars, "show", lambda self, description, done, total, note: seen.append(note))
    assert main([*arguments, "--out", str(out)]) == 0
    assert seen and all(note.startswith("severity 5") for note in seen)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "collapse"),
        (["colapse"], "collapse"),
        (["collapse", "nctat"], "Did you mean nctta"),
        (["collapse", "--dataset", "digts"], "Did you mean 'digits'?"),
        (["collapse", "--severities", "7"], "expected some of 0 to 5"),
        (["collapse", "--set", "nctta.scale=many"], "expected a number"),
        (["collapse", "--threads", "0"], "--threads"),
        (["collapse", "--out", "FILE"], "expected a folder"),
        (["collapse", "--model", "HEADLESS"], "what a linear classifier is fed"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    headless = tmp_path / "headless.py"
    headless.write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(\n        nn.Conv2d(3, 10, 3), "
        "nn.BatchNorm2d(10), nn.AdaptiveAvgPool2d(1), nn.Flatten()\n    )\n"
    )
    places = {"FILE": str(tmp_path / "file"), "HEADLESS": f"{headless}:build"}
    small = ["--size", "12", "--corruptions", "fog"] if arguments[:1] == ["collapse"] else []
    assert main(["inspect", *(places.get(word, word) for word in arguments), *small]) == 2
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1, told.err
    assert hint in told.err
    assert told.out == ""


def test_the_commands_of_the_page_are_understood() -> None:
    page = (Path(__file__).parents[2] / "docs" / "collapse.md").read_text("utf-8")
    lines = [line for block in re.findall(r"```console\n(.*?)```", page, re.S) for line in block.splitlines()]
    assert len(lines) >= 2
    for line in lines:
        command = shlex.split(line)
        assert command[0] == "acclimate"
        assert isinstance(parse(command[1:]), Inspect)
