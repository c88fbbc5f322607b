"""A small data set for mixes."""

from __future__ import annotations

import pytest

from acclimate.streams import Dataset

from .mixing import pictures


@pytest.fixture(scope="session")
def photos() -> Dataset:
    return pictures()
