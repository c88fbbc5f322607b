"""Results: means of gradual streams, gains, merging and its refusals, paired intervals, tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from acclimate.experiment import Results, load_results, paired_difference, run
from acclimate.experiment.paired import bootstrap_interval
from acclimate.experiment.record import Record
from acclimate.experiment.rows import BatchRow, Header, UnitRow, pack_bits
from acclimate.experiment.tabulate import to_csv, to_markdown
from acclimate.experiment.verdict import verdict, worst_cell


def made(wrong: dict[str, list[list[int]]], segments: list[tuple[str, int]], *, ms: dict[str, float] | None = None):
    """A record in which each method's wrong answers are given: one list of 0 and 1 for each segment."""
    header = Header(
        created="now", command="acclimate run", request={}, answer="before", reset="never", seeds=(0,),
        stream={"name": "made", "batches": len(segments), "fingerprints": {"0": "f"}, "protocol": {},
                "segments": [list(pair) for pair in segments]},
        model={"name": "m", "class": "M", "fingerprint": "g", "parameters": 1},
        methods={label: {"config": {"name": label}, "cost": {}} for label in wrong}, environment={},
    )  # fmt: skip
    record = Record(path=Path("runs/made/record.jsonl"), header=header)
    for label, each in wrong.items():
        for number, flags in enumerate(each):
            record.rows.append(
                BatchRow(
                    method=label, seed=0, batch=number, segment=segments[number][0], severity=segments[number][1],
                    samples=len(flags), scored=len(flags), errors=sum(flags), wrong=pack_bits(flags),
                    ms=(ms or {}).get(label, 1.0),
                )
            )  # fmt: skip
            record.images[0, number] = tuple(range(len(flags)))
        record.units.append(UnitRow(method=label, seed=0, batches=len(each), scored=0, errors=0, seconds=0.0))
    return record


def test_the_two_means_of_a_gradual_stream(gradual_record) -> None:
    results = Results.of(gradual_record)
    errors = results.segment_errors("tent")
    assert results.gradual
    assert results.segments == [("fog", 1), ("fog", 5), ("fog", 1), ("snow", 1), ("snow", 5)]
    assert results.mean_error("tent") == pytest.approx(errors.mean())
    assert results.mean_error("tent", severity=5) == pytest.approx((errors[1] + errors[4]) / 2)
    by_corruption = results.corruption_errors("tent")
    assert by_corruption["fog"] == pytest.approx(errors[:3].mean())
    assert by_corruption["snow"] == pytest.approx(errors[3:].mean())


def test_gain_and_ratio_refer_to_the_source() -> None:
    record = made(
        {"source": [[1, 1, 0, 0], [1, 0, 0, 0]], "tent": [[1, 0, 0, 0], [1, 1, 0, 0]]},
        [("fog", 5), ("snow", 5)], ms={"source": 2.0, "tent": 5.0},
    )  # fmt: skip
    results = Results.of(record)
    assert results.gain("tent") == pytest.approx(0)
    assert results.corruption_gains("tent") == {"fog": 25, "snow": -25}
    assert results.ratio("tent") == pytest.approx(2.5)
    cell = worst_cell(results)
    assert cell is not None and (cell.method, cell.corruption, cell.gain) == ("tent", "snow", -25)
    assert "does not differ" in verdict(results)


def test_the_paired_difference_is_that_of_the_mean_errors(gradual_record, tiny_record) -> None:
    for record in (gradual_record, tiny_record):
        results = Results.of(record)
        gap = paired_difference(results, "tent", "source")
        assert gap.mean == pytest.approx(results.mean_error("tent") - results.mean_error("source"))
        assert gap.low <= gap.mean <= gap.high
        assert gap.clusters == 20
        same = paired_difference(results, "bn", "bn")
        assert (same.mean, same.low, same.high, same.real) == (0, 0, 0, False)


def test_the_interval_is_the_binomial_one_where_that_is_known() -> None:
    random = np.random.default_rng(1)
    n = 4000
    worse, better = random.random(n) < 0.15, random.random(n) < 0.05
    a, b = (worse & ~better).astype(int), (better & ~worse).astype(int)
    results = Results.of(made({"a": [a.tolist()], "b": [b.tolist()]}, [("fog", 5)]))
    gap = paired_difference(results, "a", "b", resamples=4000)
    difference = 100 * (a - b)
    half = 1.96 * difference.std(ddof=1) / np.sqrt(n)
    assert gap.mean == pytest.approx(difference.mean())
    assert gap.low == pytest.approx(gap.mean - half, abs=0.1 * half)
    assert gap.high == pytest.approx(gap.mean + half, abs=0.1 * half)
    assert gap.real


def test_an_image_seen_under_every_shift_counts_once() -> None:
    random = np.random.default_rng(2)
    flags = (random.random(500) < 0.3).astype(int).tolist()
    none = [0] * 500
    one = Results.of(made({"a": [flags], "b": [none]}, [("fog", 5)]))
    many = Results.of(made({"a": [flags] * 4, "b": [none] * 4}, [("fog", 5), ("snow", 5), ("rain", 5), ("hail", 5)]))
    first, second = paired_difference(one, "a", "b"), paired_difference(many, "a", "b")
    assert second.clusters == first.clusters == 500
    assert second.high - second.low == pytest.approx(first.high - first.low)


def test_the_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    inside = 0
    for trial in range(200):
        values = random.normal(1.0, 1.0, 60) / 60
        low, high = bootstrap_interval(values, resamples=400, seed=trial)
        inside += low <= 1.0 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_a_single_image_gives_no_interval() -> None:
    with pytest.raises(ValueError, match="at least two images"):
        bootstrap_interval(np.ones(1))


def test_other_streams_and_models_are_refused(make_plan, tmp_path: Path) -> None:
    run(make_plan("source", seeds=(0,)), tmp_path / "a")
    run(make_plan("source", seeds=(0,), stream_name="other"), tmp_path / "b")
    run(make_plan("source", seeds=(7,)), tmp_path / "c")
    with pytest.raises(ValueError, match=r"different streams .*name: tiny and other"):
        load_results(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ValueError, match="none in common"):
        load_results(tmp_path / "a", tmp_path / "c")
    plan = make_plan("source", seeds=(0,))
    plan.model.linear.bias.data.add_(1)
    run(plan, tmp_path / "d")
    with pytest.raises(ValueError, match="different source models"):
        load_results(tmp_path / "a", tmp_path / "d")


def test_runs_on_the_same_stream_stand_in_one_table(make_plan, tmp_path: Path) -> None:
    run(make_plan("source", "tent", seeds=(0,)), tmp_path / "a")
    run(make_plan("source", "bn", seeds=(0, 1)), tmp_path / "b")
    run(make_plan("source", "tent", seeds=(0,), answer="after"), tmp_path / "c")
    results = load_results(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert results.methods == ("source", "tent", "bn", "tent (c)")
    assert paired_difference(results, "bn", "tent").clusters == 20


def test_an_unfinished_run_is_not_compared(make_plan, tmp_path: Path) -> None:
    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make_plan(), tmp_path, progress=stop)
    with pytest.raises(ValueError, match="--resume"):
        load_results(tmp_path)


def test_an_unknown_method_is_told(tiny_record) -> None:
    with pytest.raises(ValueError, match="There are: source, bn, tent"):
        Results.of(tiny_record).mean_error("palm")


def test_tables_for_other_programs(gradual_record, tiny_record) -> None:
    results = Results.of(gradual_record)
    rows = list(csv.DictReader(io.StringIO(to_csv(results))))
    assert [row["method"] for row in rows] == ["source", "bn", "tent"]
    assert float(rows[2]["mean"]) == pytest.approx(results.mean_error("tent"))
    assert float(rows[2]["mean at 5"]) == pytest.approx(results.mean_error("tent", severity=5))
    lines = to_markdown(results).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0].startswith("| error, % | fog | snow | mean | mean at 5 |")
    assert "± seeds" in to_markdown(Results.of(tiny_record))
