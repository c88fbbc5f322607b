"""`acclimate guards` and `acclimate run --guard`."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.cli import main
from acclimate.core.guard import guards
from acclimate.experiment import read_record


def test_guards_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guards"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].strip()}
    assert listed - {"guard", "Several"} == set(guards.classes()) - {"chain"}
    assert main(["guards", "trust_region"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "||w + t d - s|| = R" in page and "radius 0.1 from Python only" in page
    assert main(["guards", "trust_regoin"]) == 2
    assert "Did you mean trust_region?" in capsys.readouterr().err


def test_a_run_puts_methods_under_guard(model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--stream", "digits", "--size", "12", "--corruptions", "contrast", "--model", f"{model_file}:build"]
    assert main(["run", "tent", *options, "--guard", "default+rdumb", "--out", str(tmp_path)]) == 0
    assert "held" in capsys.readouterr().out
    header = read_record(tmp_path).header
    assert header.request["guard"] == "default+rdumb"
    assert [member["name"] for member in header.methods["tent"]["guard"]["members"]] == ["default", "rdumb"]
    assert main(["run", "--resume", str(tmp_path), "--guard", "sar"]) == 2
    assert "guard was given too" in capsys.readouterr().err
    assert main(["run", "--resume", str(tmp_path)]) == 0
    assert main(["run", "tent", *options, "--guard", "rdum", "--out", str(tmp_path / "other")]) == 2
    assert "Did you mean rdumb?" in capsys.readouterr().err
