"""Progress: a bar in a terminal; elsewhere nothing, or a line for each trial."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from acclimate.cli import progress
from acclimate.cli.progress import Bars
from acclimate.cli.trials import Ticker
from acclimate.experiment import Step
from acclimate.experiment.reproduce import BENCHMARKS, Request
from acclimate.experiment.rows import BatchRow

(TRIAL,) = Request(benchmark=BENCHMARKS["digits"], size=12).trials("tent")
ROW = BatchRow(method="tent", seed=0, batch=0, segment="fog", severity=3, samples=4, scored=4, errors=1)


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    console = Console(file=text, force_terminal=request.param, width=100, color_system=None)
    monkeypatch.setattr(progress, "progress_console", lambda: console)
    return text


def test_a_run_has_a_bar_in_a_terminal_only(
    written: io.StringIO, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    with Bars() as bars:
        bars.training(1, 2, 0.5, 0.25)
        bars.finish()
        bars.step(Step(3, 9, ROW, 25.0))
        bars.step(Step(9, 9, ROW, 20.0))
    text = written.getvalue()
    if "pipe" in request.node.name:
        assert not text.strip()
    else:
        assert "fog 3" in text and "9/9" in text and "tent 20.0 %" in text
    assert capsys.readouterr() == ("", "")


def test_trials_are_a_bar_or_lines(
    written: io.StringIO, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    with Ticker() as ticker:
        ticker.tick(1, 2, TRIAL, 12.347)
        ticker.tick(2, 2, TRIAL, "it lacks something")
    bar, lines = written.getvalue(), capsys.readouterr().err.splitlines()
    if "pipe" in request.node.name:
        assert not bar.strip()
        assert lines == [
            "0:00  1/2  tent on digits:continual, seed 0: 12.35 %",
            "0:00  2/2  tent on digits:continual, seed 0: it lacks something",
        ]
    else:
        assert "trials" in bar and "2/2" in bar and "it lacks something" in bar
        assert not lines
