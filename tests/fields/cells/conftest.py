"""Laboratories that several tests read."""

from __future__ import annotations

import pytest
import torch

from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.data.made_up import made_up

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def laboratories() -> list[Laboratory]:
    return list(made_up(40, 0, size=64).values())
