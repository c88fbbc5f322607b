"""`acclimate stream`, and mixed and paced runs from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from acclimate.cli import main
from acclimate.experiment import read_record
from acclimate.streams import open_stream

SMALL = ["--size", "20", "--batch-size", "10", "--corruptions", "fog", "snow"]


def test_it_prints_composition_and_fingerprint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", "digits:mixed", *SMALL, "--seed", "3"]) == 0
    told = capsys.readouterr().out
    stream = open_stream("digits:mixed", size=20, batch_size=10, corruptions=["fog", "snow"], seed=3)
    assert stream.fingerprint() in told and str(stream.composition()) in told
    assert "fog" in told and "50.0%" in told


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", "digits:potpourri+", *SMALL, "--source-share", "0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["composition"]["images"] == [20, 20, 40]
    assert told["protocol"]["source_share"] == 0.5 and len(told["fingerprint"]) == 64


@pytest.mark.parametrize("name", ["mix.png", "mix.svg"])
def test_it_draws_the_mix(tmp_path: Path, name: str) -> None:
    assert main(["stream", "digits:dynamic", *SMALL, "--picture", str(tmp_path / name)]) == 0
    if name.endswith("png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 800
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 4
    else:
        assert "</svg>" in (tmp_path / name).read_text()


def test_a_mixed_run_tells_its_composition_and_is_resumed_with_its_options(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "tent", "--stream", "digits:potpourri+", *SMALL, "--source-share", "0.2", "--pace", "1"]
    assert main([*words, "--model", f"{model_file}:build", "--out", str(tmp_path / "r")]) == 0
    told = capsys.readouterr().out
    for word in (
        "50 images of 3 domains",
        "macro",
        "pooled",
        "worst",
        "forgets, in stream",
        "forgets, held out",
        "missed",
    ):
        assert word in told
    record = read_record(tmp_path / "r")
    stream = open_stream("digits:potpourri+", size=20, batch_size=10, corruptions=["fog", "snow"], source_share=0.2)
    sentence, told_fingerprint = (line for line in told.splitlines() if "50 images" in line or "fingerprint" in line)
    assert sentence.endswith(str(stream.composition()))
    assert told_fingerprint == f"fingerprint {stream.fingerprint()[:12]}"
    assert (record.header.pace, record.header.request["source_share"]) == (1.0, 0.2)
    assert main(["run", "--resume", str(tmp_path / "r")]) == 0
    assert main(["compare", str(tmp_path / "r")]) == 0


def test_a_run_of_several_seeds_tells_the_fingerprint_of_each(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "bn", "--stream", "digits:continual", *SMALL, "--seeds", "0", "3"]
    assert main([*words, "--model", f"{model_file}:build", "--out", str(tmp_path / "r")]) == 0
    zero, three = (
        open_stream("digits:continual", size=20, batch_size=10, corruptions=["fog", "snow"], seed=seed).fingerprint()
        for seed in (0, 3)
    )
    assert f"fingerprints {zero[:12]} (seed 0), {three[:12]} (seed 3)" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stream", "digits:mixd"], "Did you mean 'mixed'"),
        (["stream", "digits:cross-mix", "--batch-size", "3"], "holds all 15 domains"),
        (["stream", "digits:mixed", "--picture", "mix.pdf"], "ends in .png or .svg"),
        (["stream", "digits:mixed", "--concentration", "1"], "is for the order 'correlated'"),
        (["run", "tent", "--stream", "digits:mixed", "--size", "12", "--pace", "0"], "the pace is 0"),
        (["stream", "potpourri:/nowhere"], "lacks imagenet-c"),
        (["run", "tent", "--stream", "digits:mixed", "--source-share", "0.2"], "Take the setting potpourri+"),
        (["stream", "digits:mixed", "--held-out", "0.2"], "Take the setting potpourri+"),
    ],
)
def test_mistakes_are_told_in_a_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
