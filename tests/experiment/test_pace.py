"""Batches on a virtual clock, against schedules computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.method import Cost, methods
from acclimate.core.report import StepReport
from acclimate.experiment import Plan, Results, read_record, run
from acclimate.experiment.pace import MISSED, Pace, work
from acclimate.experiment.tabulate import columns_of
from acclimate.streams import open_stream

COUNT = 9


def net() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def plan(*names: str, pace: float | None, **options) -> Plan:
    return Plan(
        stream=lambda seed: open_stream("digits:mixed", size=30, batch_size=10, corruptions=["fog", "snow", "frost"]),
        model=net(),
        methods={name: methods.build(name) for name in names},
        pace=pace,
        **options,
    )


def test_the_work_of_a_step() -> None:
    """F forwards, and each backward at (bound - forwards) / backwards; never more than the bound."""
    tent = Cost(forwards=1, backwards=1, bound=2)
    assert work(tent, 1, StepReport(8, forwards=1.0, backwards=1)) == 2
    assert work(tent, 1, StepReport(8, forwards=1.0, backwards=0)) == 1
    everything = Cost(forwards=34, backwards=1, bound=36)
    assert work(everything, 1, StepReport(8, forwards=2.0, backwards=1)) == 4
    assert work(everything, 1, StepReport(8, forwards=34.0, backwards=1)) == 36
    assert work(tent, 3, StepReport(8, forwards=3.0, backwards=3)) == 6
    sample_by_sample = Cost(forwards=33, backwards=1, bound=97, each="sample")
    assert work(sample_by_sample, 1, StepReport(8, forwards=33.0, backwards=8)) == 97
    selected = Cost(forwards=2, backwards=2, bound=4, selected=1)
    assert work(selected, 1, StepReport(8, forwards=3.0, backwards=2)) == 4
    assert work(Cost(forwards=1, backwards=0, bound=1.5), 1, StepReport(8, forwards=1.0)) == 1.5
    assert work(Cost(forwards=1, backwards=1), 1, StepReport(8, forwards=1.0, backwards=1)) == 3


@pytest.mark.parametrize(
    ("name", "pace", "learned"),
    [
        ("source", 1, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("tent", 2, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        # A step of 2 F: free at 2, when batch 2 comes.
        ("tent", 1, [0, 2, 4, 6, 8]),
        # Free at 2, between the arrivals at 1.5 and 3; then at 5, between 4.5 and 6, ...
        ("tent", 1.5, [0, 2, 4, 6, 8]),
        # Free at 2, between 1.8 and 2.4; from 2.4 to 4.4, between 4.2 and 4.8.
        ("tent", 0.6, [0, 4, 8]),
        # Free at 2, which is when batch 4 comes.
        ("tent", 0.5, [0, 4, 8]),
    ],
)
def test_batches_are_missed_by_schedule(tmp_path: Path, name: str, pace: float, learned: list[int]) -> None:
    record = run(plan(name, pace=pace), tmp_path)
    rows = record.grouped[name, 0]
    assert len(rows) == COUNT
    assert [row.batch for row in rows if row.reason != MISSED] == learned
    assert all(not row.updated and row.backwards == 0 for row in rows if row.reason == MISSED)
    assert Results.of(record).missed(name) == pytest.approx(1 - len(learned) / COUNT)


def test_missed_batches_are_answered_by_what_was_known_when_the_step_began(tmp_path: Path) -> None:
    """Tent at 1 F: batch 1 comes while the step on batch 0 runs, so that the source's weights answer it, and so on."""
    record = run(plan("tent", pace=1), tmp_path)
    batches = list(plan("tent", pace=None).stream(0))
    learner, behind = acclimate.adapt(net(), "tent", seed=0), acclimate.adapt(net(), "tent", seed=0)
    errors = []
    for number, batch in enumerate(batches):
        if number % 2:
            with behind.frozen():
                answer = behind(batch.images)
            behind(batches[number - 1].images)
        else:
            answer = learner(batch.images)
        errors.append(int((answer.argmax(1) != batch.labels).sum()))
    assert [row.errors for row in record.grouped["tent", 0]] == errors


def test_what_was_learned_is_what_the_learned_batches_teach() -> None:
    stream = plan("tent", pace=None).stream(0)
    paced, plain = acclimate.adapt(net(), "tent", seed=0), acclimate.adapt(net(), "tent", seed=0)
    clock = Pace(paced, 0.6)
    for batch in stream:
        with clock.batch():
            paced(batch.images)
        if batch.position in (0, 4, 8):
            plain(batch.images)
    clock.catch_up()
    for name, weight in plain.state.weights.items():
        assert torch.equal(paced.state.weights[name], weight)


def test_no_pace_is_the_stream_that_waits(tmp_path: Path) -> None:
    waiting, slow = run(plan("tent", pace=None), tmp_path / "a"), run(plan("tent", pace=100), tmp_path / "b")
    assert [r.wrong for r in waiting.rows] == [r.wrong for r in slow.rows]
    assert waiting.header.pace is None and slow.header.pace == 100
    assert "missed" not in [column.name for column in columns_of(Results.of(waiting))]
    assert "missed" in [column.name for column in columns_of(Results.of(slow))]


def test_runs_of_another_pace_stand_apart_and_are_not_resumed(tmp_path: Path) -> None:
    records = [run(plan("source", "tent", pace=pace), tmp_path / str(pace)) for pace in (None, 1)]
    assert Results.of(*records).methods == ("source", "tent", "tent (1)")
    with pytest.raises(ValueError, match="pace differ"):
        run(plan("source", "tent", pace=2), tmp_path / "1", resume=True)
    assert read_record(tmp_path / "1").complete


@pytest.mark.parametrize("pace", [0, -1, float("inf"), float("nan"), True])
def test_a_pace_that_is_none_is_refused(pace: float) -> None:
    with pytest.raises(ValueError, match="the pace is"):
        plan("source", pace=pace)
    with pytest.raises(ValueError, match="the pace is"):
        Pace(acclimate.adapt(net(), "source"), pace)
