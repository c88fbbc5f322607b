"""A state file of an adaptation under way."""

from __future__ import annotations

from pathlib import Path

import pytest

import acclimate

from .state_files import BATCH, FACTORY
from .tools import answers


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    adapted = acclimate.adapt(FACTORY(), "tent", normalization="ema")
    answers(adapted, map(BATCH, range(2)))
    adapted.save(tmp_path / "state")
    return tmp_path / "state"
