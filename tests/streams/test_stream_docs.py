"""The page of the streams and all examples in docstrings run as they stand."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import acclimate.models
import acclimate.streams

PAGE = Path(__file__).resolve().parents[2] / "docs/streams.md"
MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (acclimate.streams, acclimate.models)
    for module in pkgutil.iter_modules(package.__path__)
    if not module.ispkg
]


@pytest.mark.parametrize("number", range(9))
def test_the_page(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 9
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path))
    exec(compile(blocks[number], f"{PAGE.name}:{number}", "exec"), {})


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str):
    module = importlib.import_module(name)
    import torch

    globals_ = {**vars(module), "torch": torch}
    assert doctest.testmod(module, globs=globals_).failed == 0


def test_optional_packages_are_imported_late():
    code = "import sys, acclimate.streams, acclimate.models; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sklearn", "PIL", "scipy", "matplotlib", "torchvision"} & set(loaded)
    assert "acclimate.streams" in loaded
