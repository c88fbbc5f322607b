"""Scripts as users start them: by torchrun, across links that go down, and with a rank that dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("under_torchrun.py")
OUTAGE = 2.0


@pytest.fixture(scope="module", params=["hook", "decosgd"])
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Any]]:
    """How torchrun ended, and what its ranks left."""
    folder = tmp_path_factory.mktemp(request.param)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    job = subprocess.run(
        [sys.executable, *command, str(SCRIPT), request.param, str(folder), str(OUTAGE)],
        capture_output=True, text=True, timeout=280, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    files = [folder / f"{request.param}-{rank}.json" for rank in range(2)]
    assert all(file.is_file() for file in files), job.stderr[-4000:]
    return job, [json.loads(file.read_text()) for file in files]


@pytest.mark.slow
def test_an_outage_is_waited_for_and_replicas_stay_identical(ended: tuple[Any, list[Any]]) -> None:
    one, other = (each["down"] for each in ended[1])
    assert one["weights"] == other["weights"] and any(one["weights"])
    for each in (one, other):
        assert OUTAGE - 0.5 < each["pause"] < each["took"] and each["took"] > 40 * 0.05 + OUTAGE - 0.5


@pytest.mark.slow
def test_an_outage_beyond_the_timeout_is_a_lost_peer_on_every_rank(ended: tuple[Any, list[Any]]) -> None:
    for each in (found["cut"] for found in ended[1]):
        assert each["fault"] == "LostPeer" and "its link is down or too slow" in each["text"]
        assert each["took"] < 15


@pytest.mark.slow
def test_a_rank_that_dies_is_told_by_the_other(ended: tuple[Any, list[Any]]) -> None:
    job = ended[0]
    assert job.returncode != 0 and "exitcode  : 9" in job.stderr
    assert "LostPeer: message" in job.stderr and "did not come from every rank within 30 s: a rank died" in job.stderr
