"""`acclimate reproduce`: outcomes, mistakes, interruption."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.cli import main
from acclimate.cli.trials import Ticker

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
        (["--tables", "9"], "there is no table '9'"),
        (["--figures", "1"], "There are: 2, 3"),
        (["--write-only", "--out", str(tmp_path / "mistyped")], "there are no trials in"),
    ):
        assert main(["reproduce", "palm", "--benchmark", "digits", *options]) != 0
        assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "mistyped").exists()
