"""One process that all servers of these tests are forked from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .served import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()
