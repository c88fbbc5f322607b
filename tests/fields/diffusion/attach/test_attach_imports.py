"""diffusers is imported when it is needed, and its absence is explained."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("diffusers")

from tiny_transformers import drawn

from acclimate.fields.diffusion.attach.processor import rotated


def test_importing_the_adapters_imports_no_diffusers() -> None:
    code = "import sys, acclimate.fields.diffusion.attach.compact, acclimate.fields.diffusion.attach.xdit\n"
    code += "assert not {'diffusers', 'xfuser', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_diffusers_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers.models.embeddings", None)
    with pytest.raises(ImportError, match=r'pip install "acclimate\[diffusion\]"'):
        rotated(drawn(1, 2, 1, 4), (drawn(2, 4), drawn(2, 4)))
