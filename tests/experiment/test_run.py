"""Running: errors against an independent count, one pass for all methods, silence, resumption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import acclimate
from acclimate.core.method import methods
from acclimate.experiment import Plan, Results, read_record, run
from acclimate.experiment.unit import mistakes
from acclimate.streams import from_loader


class Stop(Exception):
    pass


def numbers(record):
    """Everything but times."""
    return [
        (r.method, r.seed, r.batch, r.errors, r.scored, r.wrong, r.state_bytes, tuple(r.values.items()))
        for r in sorted(record.rows, key=lambda r: (r.seed, r.batch, r.method))
    ]


def test_errors_are_those_of_an_independent_count(make_plan, tmp_path: Path) -> None:
    plan = make_plan("source", "tent")
    results = Results.of(run(plan, tmp_path))
    for label in plan.methods:
        expected = []
        for seed in plan.seeds:
            adapted = acclimate.adapt(plan.model, methods.build(label), seed=seed)
            wrong: dict[tuple[str, int], list[float]] = {}
            for batch in plan.stream(seed):
                answers = adapted(batch.images).detach().numpy().argmax(1)
                labels = batch.labels.numpy()
                known = labels != -1
                wrong.setdefault((batch.segment.name, 5), []).extend((answers != labels)[known].astype(float))
            expected.append([100 * float(np.mean(values)) for values in wrong.values()])
        np.testing.assert_allclose(results.segment_errors(label), np.mean(expected, axis=0), rtol=1e-12)
        assert results.mean_error(label) == pytest.approx(float(np.mean(expected)))


def test_unknown_labels_are_not_scored() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    wrong, scored = mistakes(logits, torch.tensor([0, 1, -1]))
    assert wrong.tolist() == [False, True, False]
    assert scored.tolist() == [True, True, False]


def test_answers_that_do_not_belong_to_the_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected logits"):
        mistakes(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]))


def test_each_batch_is_made_once_for_all_methods(make_plan, tiny_stream, tmp_path: Path) -> None:
    stream = tiny_stream(0, [("fog", 5)])
    plan = make_plan("source", "bn", "tent", seeds=(0,))
    run(Plan(stream=lambda seed: stream, model=plan.model, methods=plan.methods), tmp_path)
    assert stream.passes == 1


def test_the_library_prints_nothing(make_plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(make_plan(), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_progress_counts_every_step(make_plan, tmp_path: Path) -> None:
    steps = []
    run(make_plan(), tmp_path, progress=steps.append)
    assert [step.done for step in steps] == list(range(1, steps[-1].total + 1))
    assert steps[-1].total == 2 * 3 * 6
    assert all(0 <= step.error <= 100 for step in steps)


@pytest.mark.parametrize("stop_at", [1, 17, 20, 36])
def test_a_resumed_run_is_the_uninterrupted_one(make_plan, tmp_path: Path, stop_at: int) -> None:
    whole = run(make_plan(), tmp_path / "whole")

    def stop(step):
        if step.done == stop_at:
            raise Stop

    with pytest.raises(Stop):
        run(make_plan(), tmp_path / "broken", progress=stop)
    broken = read_record(tmp_path / "broken")
    assert not broken.complete
    assert len(broken.rows) == stop_at
    resumed = run(make_plan(), tmp_path / "broken", resume=True)
    assert resumed.complete
    assert numbers(resumed) == numbers(whole)
    assert resumed.images == whole.images
    assert resumed.summary["mean_error"] == whole.summary["mean_error"]


def test_finished_units_are_not_repeated(make_plan, tmp_path: Path) -> None:
    def stop(step):
        if step.row.seed == 1:
            raise Stop

    with pytest.raises(Stop):
        run(make_plan(), tmp_path, progress=stop)
    steps = []
    run(make_plan(), tmp_path, progress=steps.append, resume=True)
    assert {step.row.seed for step in steps} == {1}
    assert steps[0].done == 3 * 6 + 1


def test_resuming_another_run_is_refused(make_plan, tmp_path: Path) -> None:
    run(make_plan(), tmp_path)
    with pytest.raises(ValueError, match="answer order differ"):
        run(make_plan(answer="after"), tmp_path, resume=True)
    with pytest.raises(ValueError, match="stream differ"):
        run(make_plan(stream_name="other"), tmp_path, resume=True)


def test_an_occupied_folder_is_refused(make_plan, tmp_path: Path) -> None:
    run(make_plan(), tmp_path)
    before = (tmp_path / "record.jsonl").read_bytes()
    with pytest.raises(ValueError, match="another run"):
        run(make_plan(), tmp_path)
    assert (tmp_path / "record.jsonl").read_bytes() == before


def test_a_method_that_cannot_adapt_the_model_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    loader = [(torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))]
    plan = Plan(stream=lambda seed: from_loader(loader), model=model, methods={"tent": methods.build("tent")})
    with pytest.raises(ValueError, match="tent cannot run on this model"):
        run(plan, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_loader_without_length_or_labels_runs(tmp_path: Path) -> None:
    class Endless:
        def __iter__(self):
            generator = torch.Generator().manual_seed(0)
            return iter([torch.rand(4, 3, 8, 8, generator=generator) for _ in range(3)])

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 8), torch.nn.BatchNorm2d(2), torch.nn.Flatten()).eval()
    plan = Plan(stream=lambda seed: from_loader(Endless()), model=model, methods={"bn": methods.build("bn")})
    steps = []
    record = run(plan, tmp_path, progress=steps.append)
    assert [step.total for step in steps] == [None] * 3
    assert np.isnan(Results.of(record).mean_error("bn"))
    assert record.summary["mean_error"] == {"bn": None}


def test_the_record_says_what_ran(tiny_record) -> None:
    header = tiny_record.header
    assert header.methods["tent"]["config"]["learning_rate"] == 1e-3
    assert header.methods["tent"]["cost"] == {"forwards": 1, "backwards": 1}
    assert header.stream["fingerprints"].keys() == {"0", "1"}
    assert header.environment["torch"] == torch.__version__
    assert len(header.model["fingerprint"]) == 64
    row = next(row for row in tiny_record.rows if row.method == "tent")
    assert row.updated and row.backwards == 1 and row.ms > 0 and row.state_bytes > 0
    assert row.values["entropy"] > 0
    unit = next(unit for unit in tiny_record.units if unit.method == "tent")
    assert unit.memory["saved"] > 0 and unit.memory["state"]["weights"] > 0


def test_every_line_is_json_of_its_own(tiny_record) -> None:
    kinds = [json.loads(line)["kind"] for line in tiny_record.path.read_text().splitlines()]
    assert kinds[0] == "header" and kinds[-1] == "summary"
    assert kinds.count("batch") == 2 * 3 * 6 and kinds.count("unit") == 6


def test_a_plan_without_methods_or_with_a_seed_twice_is_refused(make_plan) -> None:
    plan = make_plan()
    with pytest.raises(ValueError, match="no method"):
        Plan(stream=plan.stream, model=plan.model, methods={})
    with pytest.raises(ValueError, match="each of them once"):
        Plan(stream=plan.stream, model=plan.model, methods=plan.methods, seeds=(1, 1))
