"""What the documents say is run: README and CONTRIBUTING, method pages, docstring examples."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import acclimate
from acclimate.core.method import methods

ROOT = Path(__file__).parent.parent


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text("utf-8"), re.M | re.S)


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "\n".join(blocks("README.md", "python"))
    assert "acclimate.adapt" in source
    exec(compile(source, "README.md", "exec"), {})


def test_make_run_is_the_main_job(tmp_path):
    """What `make run` would call, called: the whole default comparison, with its record and report."""
    planned = run(["make", "-n", "-o", ".venv/cli.stamp", "run"], ROOT)
    command = next(shlex.split(line) for line in planned.splitlines() if "acclimate run" in line)
    assert command[1:] == shlex.split("run source bn tent palm --stream digits:continual")
    out = run([sys.executable, "-m", "acclimate.cli", *command[1:], "--out", str(tmp_path / "run")], tmp_path)
    assert "gauss" in out
    assert (tmp_path / "run" / "record.jsonl").is_file()
    assert (tmp_path / "run" / "report.html").is_file()


def test_readme_commands_are_understood(tmp_path):
    """Each shell line of the README, small: data that only its user has is left out."""
    lines = [line for block in blocks("README.md", "console") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    assert [c for c in commands if c[0] == "make"] == [["make", "run"], ["make", "test"]]
    ours = [c[1:] for c in commands if c[0] == "acclimate"]
    named = {"run", "compare", "reproduce", "segment", "stream", "inspect", "methods", "guards", "doctor", "serve"}
    named |= {"cells", "train"}
    assert {c[0] for c in ours} == named
    run([sys.executable, "-m", "acclimate.cli", "methods"], tmp_path)
    run([sys.executable, "-m", "acclimate.cli", "guards"], tmp_path)
    for number in ("first", "second"):
        small = ["run", "tent", "--stream", "digits:continual", "--size", "40", "--out", f"runs/{number}"]
        run([sys.executable, "-m", "acclimate.cli", *small], tmp_path)
    run([sys.executable, "-m", "acclimate.cli", *next(c for c in ours if c[0] == "compare")], tmp_path)
    again = next(c for c in ours if c[0] == "reproduce")
    here = ["--benchmark", "digits", "--methods", "source", "bn", "--gradual-size", "10", "--jobs", "1"]
    run([sys.executable, "-m", "acclimate.cli", *again[:-1], "40", *here], tmp_path)
    assert "Table 1" in next(tmp_path.rglob("reproduce.md")).read_text(encoding="utf-8")


def test_the_example_of_contributing_is_a_method(tmp_path, monkeypatch):
    """The one file that CONTRIBUTING shows, put beside the others, is found, listed and adapts."""
    (source,) = blocks("CONTRIBUTING.md", "python")
    package = importlib.import_module("acclimate.methods")
    (tmp_path / "sharpen.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(methods, "_loaded", False)
    try:
        assert "sharpen" in acclimate.list_methods(needs_backward=True)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
        adapted = acclimate.adapt(net.append(torch.nn.Linear(144, 3)), "sharpen")
        images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        adapted(images)
        assert adapted.last.updated
        assert adapted.last.distance > 0
    finally:
        methods._classes.pop("sharpen", None)
        sys.modules.pop("acclimate.methods.sharpen", None)


def test_method_pages_are_fresh():
    """Every section that docs/methods.md has is what its method says today; `make docs` renews it."""
    spec = importlib.util.spec_from_file_location("make_methods", ROOT / "docs" / "make_methods.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    written = (ROOT / "docs" / "methods.md").read_text("utf-8")
    pages = maker.pages()
    for name in re.findall(r"^## (\S+)$", written, re.M):
        assert pages[name] in written, f"the page of {name} is stale: run make docs"
    assert {"source", "bn", "tent", "palm", "rdumb"} <= set(re.findall(r"^## (\S+)$", written, re.M))


def modules() -> list[str]:
    found = [m.name for m in pkgutil.walk_packages(acclimate.__path__, "acclimate.")]
    return [name for name in found if not name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failures = doctest.testmod(importlib.import_module(name), verbose=False).failed
    assert failures == 0


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", (ROOT / document).read_text("utf-8")):
        assert (ROOT / document).parent.joinpath(target).exists(), target
