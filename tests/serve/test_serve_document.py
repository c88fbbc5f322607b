"""The page about the server: its quick start is run as it stands, and what it lists is what there is."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from acclimate.cli.app import parse
from acclimate.serve.settings import Limits

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serve.md").read_text("utf-8")


def test_the_quick_start_works_as_written(tmp_path: Path) -> None:
    if not all(map(shutil.which, ("bash", "curl"))):
        pytest.skip("no bash and curl here")
    (model,) = re.findall(r"^```python\n(# my_model.py\n.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "my_model.py").write_text(model)
    first, second, *_ = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    start = first.strip().replace("acclimate serve", "( acclimate serve")
    script = f"""
        set -eo pipefail
        acclimate() {{ exec "{sys.executable}" -m acclimate.cli "$@" --port {port}; }}
        python() {{ "{sys.executable}" "$@"; }}
        {start} ) &
        trap 'kill $!; wait $!; printf "\\nended with $?\\n"' EXIT
        {second.replace("8000", port)}
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", textwrap.dedent(script)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ready, *told = [json.loads(line) for line in re.sub(r"\}\{", "}\n{", done.stdout).splitlines() if line[:1] == "{"]
    answers, status, kept, listed, reset = told[:2], *told[2:]
    assert ready["ready"] and all(len(answer["labels"]) == 8 for answer in answers)
    assert status["batches"] == 2 and kept["version"] <= 2 and reset["version"] > kept["version"]
    assert kept["version"] in [each["version"] for each in listed["snapshots"] if each["name"] == "first-day"]
    assert done.stdout.endswith("ended with 0\n")
    assert (tmp_path / "state" / "streams" / "line-3" / "manifest.json").is_file()


def test_every_bound_is_listed_with_its_default() -> None:
    (table,) = re.findall(r"^## Limits\n(.*?)^## ", PAGE, re.M | re.S)
    named = set(re.findall(r"`([a-z_]+)`", table.replace("`--limit`", "")))
    assert named == {field.name for field in dataclasses.fields(Limits)}
    for option in set(re.findall(r"`(--[a-z-]+)", table)) - {"--limit"}:
        assert parse(["serve", "m.py:build", option, "7"])
    numbers = {int(each.replace(",", "")) for each in re.findall(r"\b\d[\d,]*\b", table)}
    told = vars(Limits())
    large = ("body_bytes", "pixels", "state_bytes", "audit_bytes")  # written in MiB
    assert {int(value) for name, value in told.items() if name not in large} <= numbers


def test_every_metric_and_every_test_that_is_named_exists() -> None:
    families = [line.split()[:2] for line in (ROOT / "tests" / "serve" / "metrics.txt").read_text().splitlines()]
    named = set(re.findall(r"`(acclimate_\w+)(?:\{[^`]*)?`", PAGE))
    ends = {"counter": "_total", "info": "_info"}
    assert named == {name + ends.get(kind, "") for name, kind in families}
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "serve").glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", PAGE):
        assert f"def {name}(" in tests, name
