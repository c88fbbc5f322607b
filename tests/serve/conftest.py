"""One process that all servers of these tests are forked from, and one server that most of them ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .served import Nursery, Server


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the server `inline`."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def inline(nursery: Nursery, state_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Learns with each answer, so that what it has learned is known. Each test has streams of its own."""
    log = tmp_path_factory.mktemp("inline") / "log"
    with nursery.serving(log, update="inline", state_dir=str(state_dir), persist_every=1) as server:
        yield server
