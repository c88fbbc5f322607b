"""Where the real data is."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared folder; the test is skipped where it is absent."""
    given = os.environ.get("ACCLIMATE_SHARED")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "../shared"
    if not (folder / "data/cifar10_test.npz").is_file():
        pytest.skip(f"no shared data in {folder}; set ACCLIMATE_SHARED")
    monkeypatch.setenv("ACCLIMATE_SHARED", str(folder.resolve()))
    return folder.resolve()
