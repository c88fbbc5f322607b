"""One thread for torch, since tiny tensors gain nothing from more; and where the real data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import acclimate

torch.set_num_threads(1)

DEFAULTS = acclimate.adapt.__kwdefaults__
assert DEFAULTS is not None
USUAL_GUARD = DEFAULTS["guard"]
DEFAULTS["guard"] = None  # the suite looks at methods by themselves; tests of guards ask for one


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data (`$ACCLIMATE_SHARED`, default `../shared`); the test is skipped where it is absent."""
    given = os.environ.get("ACCLIMATE_SHARED")
    folder = Path(given) if given else Path(__file__).resolve().parents[1] / "../shared"
    if not (folder / "data/cifar10_test.npz").is_file():
        pytest.skip(f"no shared data in {folder}; set ACCLIMATE_SHARED")
    monkeypatch.setenv("ACCLIMATE_SHARED", str(folder.resolve()))
    return folder.resolve()
