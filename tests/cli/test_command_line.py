"""The command line as a process: help, a whole run, one line for a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from acclimate.cli.app import COMMANDS


def acclimate(*arguments: str, cwd: Path | None = None, columns: int = 100) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": str(columns), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "acclimate.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_teaches(command: str) -> None:
    done = acclimate(*filter(None, [command]), "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert f"acclimate {command}".strip() in done.stdout
    for word in [] if command else COMMANDS:
        assert f"  {word}" in done.stdout


def test_a_whole_run_then_its_comparison(model_file: Path, tmp_path: Path) -> None:
    options = ["--stream", "digits:continual", "--size", "40", "--model", f"{model_file}:build", "--threads", "1"]
    done = acclimate("run", "tent", "palm:stable", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "source was added" in done.stdout
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "record.jsonl").is_file() and (folder / "report.html").is_file()
    html = (folder / "report.html").read_text()
    for name in ("source", "tent", "palm:stable", "gaussian noise", "jpeg compression", "acclimate run tent"):
        assert name in html
    compared = acclimate("compare", str(folder), cwd=tmp_path)
    assert compared.returncode == 0
    for text in (done.stdout, compared.stdout):
        for name in ("source", "tent", "palm:stable", "gaussian_noise", "jpeg_compression", "mean", "gain", "time"):
            assert name in text
        assert max(map(len, text.splitlines()[:20])) <= 100


def test_a_mistake_is_one_line_on_standard_error_and_nothing_else() -> None:
    done = acclimate("run", "tnet", "--stream", "digits:continual")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "Did you mean tent?" in done.stderr


def test_debug_shows_the_traceback() -> None:
    done = acclimate("report", "nowhere", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "FileNotFoundError" in done.stderr


def ended(arguments: list[str], gone: str) -> subprocess.CompletedProcess[str]:
    """A command of whose streams some have nobody at the other end before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    out, errors = (writing if name in gone else subprocess.PIPE for name in ("stdout", "stderr"))
    command = [sys.executable, "-m", "acclimate.cli", *arguments]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, stdout=out, stderr=errors, text=True, check=False, env=environment)
    os.close(writing)
    return done


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["cells", "--help"], ["methods"]])
def test_a_reader_that_has_gone_is_no_error(arguments: list[str]) -> None:
    """As `| head -1` leaves it."""
    done = ended(arguments, "stdout")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["nosuch"], ["run", "--nosuch"], ["report", "nowhere"]])
def test_a_failure_is_one_whoever_reads(arguments: list[str]) -> None:
    for gone in ("stderr", "stdout", "stdout and stderr"):
        done = ended(arguments, gone)
        assert done.returncode == 2 and not done.stdout
        assert (done.stderr or "").count("\n") == (1 if gone == "stdout" else 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["methods"]])
def test_a_full_disk_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "acclimate.cli", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_the_library_does_not_import_the_command_line() -> None:
    code = (
        "import sys, acclimate, acclimate.streams, acclimate.models; "
        "heavy = ('tyro', 'rich', 'matplotlib', 'acclimate.cli', 'acclimate.experiment'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_does_not_import_matplotlib() -> None:
    code = (
        "import sys; from acclimate.cli import main; main(['run', '--help']); "
        "print([m for m in ('matplotlib', 'sklearn', 'PIL') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
