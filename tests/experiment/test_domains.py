"""Errors by domain, forgetting, and records of mixed streams, recomputed by hand."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.method import methods
from acclimate.experiment import Plan, Results, load_results, run
from acclimate.experiment.domains import DomainTally, forgotten
from acclimate.experiment.report import report_html
from acclimate.experiment.tabulate import columns_of, to_csv, to_markdown
from acclimate.experiment.unit import Unit, mistakes
from acclimate.streams import Batch, Segment, open_stream

NAMES = ["fog", "snow", "contrast"]


def tiny_net() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net.eval()


def mixed_plan(*names: str, spec: str = "digits:potpourri+", seeds=(0, 1), **options) -> Plan:
    return Plan(
        stream=lambda seed: open_stream(spec, size=24, batch_size=10, corruptions=NAMES, seed=seed),
        model=tiny_net(),
        methods={name: methods.build(name) for name in names or ("source", "tent")},
        seeds=seeds,
        **options,
    )


@pytest.fixture
def mixed_record(tmp_path: Path):
    return run(mixed_plan(), tmp_path / "mixed")


def answered(plan: Plan, label: str, seed: int):
    """Wrong answers by domain name, and those on the held-out images in the end, by a loop of our own."""
    stream = plan.stream(seed)
    adapted = acclimate.adapt(plan.model, plan.methods[label], seed=seed)
    wrong: dict[str, list[bool]] = {}
    for batch in stream:
        flags = adapted(batch.images).argmax(1) != batch.labels
        for domain, flag in zip(batch.domains.tolist(), flags.tolist(), strict=True):
            wrong.setdefault(stream.domains[domain].name, []).append(flag)
    with adapted.frozen():
        after = [bool(f) for b in stream.held_out() for f in adapted(b.images).argmax(1) != b.labels]
    return wrong, after


def percent(flags: list[bool]) -> float:
    return 100 * sum(flags) / len(flags)


def test_every_figure_is_that_of_an_independent_count(mixed_record) -> None:
    plan, results = mixed_plan(), Results.of(mixed_record)
    assert results.mixed and results.corruptions == (*NAMES, "clean")
    found = {(label, seed): answered(plan, label, seed) for label in plan.methods for seed in plan.seeds}
    for label in plan.methods:
        domains = [[percent(found[label, seed][0][name]) for name in results.corruptions] for seed in plan.seeds]
        np.testing.assert_allclose(results.domain_errors(label), np.mean(domains, axis=0))
        np.testing.assert_allclose(list(results.corruption_errors(label).values()), np.mean(domains, axis=0))
        assert results.macro_error(label) == pytest.approx(np.mean(domains))
        pooled = [percent([f for flags in found[label, seed][0].values() for f in flags]) for seed in plan.seeds]
        assert results.pooled_error(label) == pytest.approx(np.mean(pooled)) == results.mean_error(label)
        worst = int(np.argmax(np.mean(domains, axis=0)))
        assert results.worst_domain(label) == (
            results.corruptions[worst],
            pytest.approx(np.mean(domains, axis=0)[worst]),
        )
        online = [percent(found[label, s][0]["clean"]) - percent(found["source", s][0]["clean"]) for s in plan.seeds]
        assert results.forgetting(label) == pytest.approx(np.mean(online))
        after = [percent(found[label, s][1]) - percent(found["source", s][1]) for s in plan.seeds]
        assert results.forgetting_after(label) == pytest.approx(np.mean(after))
    assert results.forgetting("source") == results.forgetting_after("source") == 0


def test_the_summary_has_them_too(mixed_record) -> None:
    results = Results.of(mixed_record)
    told = mixed_record.summary["domains"]["tent"]
    assert told["errors"] == pytest.approx(results.corruption_errors("tent"))
    assert told["macro"] == pytest.approx(results.macro_error("tent"))
    assert set(told) == {"errors", "macro", "pooled", "worst", "forgetting", "forgetting_after"}
    json.dumps(told)


def test_tables_and_report_show_them(mixed_record) -> None:
    results = Results.of(mixed_record)
    names = [column.name for column in columns_of(results)]
    lost = ["forgets, in stream", "forgets, held out"]
    assert names == [*NAMES, "clean", "macro", "pooled", "worst", "± seeds", *lost, "gain", "time"]
    assert "| macro | pooled | worst |" in to_markdown(results)
    first, *_, last = csv.DictReader(io.StringIO(to_csv(results)))
    assert first["method"] == "source" and {float(first[name]) for name in lost} == {0.0}
    found = results.forgetting(last["method"]), results.forgetting_after(last["method"])
    assert tuple(float(last[name]) for name in lost) == found and found[0] != found[1]
    html = report_html(results)
    for text in (
        "Composition",
        "Methods and domains",
        "held out of it",
        "any domain" if "No method" in html else "Worst",
    ):
        assert text in html
    assert str(results.composition) in html
    assert "segments" in html


def test_one_domain_at_a_time_is_reported_as_before(tiny_record) -> None:
    results = Results.of(tiny_record)
    assert not results.mixed and not results.forgets
    assert [column.name for column in columns_of(results)] == ["fog", "snow", "mean", "± seeds", "gain", "time"]
    assert results.domain_errors("tent").tolist() == pytest.approx(results.segment_errors("tent").tolist())
    assert not tiny_record.domains


def test_correlated_streams_have_their_domains_in_time(tmp_path: Path) -> None:
    results = Results.of(run(mixed_plan(spec="digits:correlated"), tmp_path))
    assert not results.mixed and results.corruptions == tuple(NAMES)
    assert results.mean_error("tent") == pytest.approx(results.macro_error("tent"))


def test_older_records_are_read(tiny_record) -> None:
    lines = [json.loads(line) for line in tiny_record.path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "header":
            del line["pace"]
            for name in ("domains", "source", "composition"):
                line["stream"].pop(name)
        line.pop("held_out", None)
    expected = Results.of(tiny_record).mean_error("tent")
    tiny_record.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = load_results(tiny_record.path)
    assert results.mean_error("tent") == expected
    assert results.composition is None and not results.mixed and results.forgetting("tent") is None
    assert report_html(results)


@pytest.mark.parametrize("stop_at", [3, 22])
def test_an_interrupted_mixed_run_continues_as_if_it_never_was(tmp_path: Path, stop_at: int) -> None:
    whole = run(mixed_plan(), tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(step):
        if step.done == stop_at:
            raise Stop

    with pytest.raises(Stop):
        run(mixed_plan(), tmp_path / "broken", progress=stop)
    resumed = run(mixed_plan(), tmp_path / "broken", resume=True)
    assert resumed.complete
    assert (resumed.images, resumed.domains) == (whole.images, whole.domains)
    assert resumed.summary["domains"] == whole.summary["domains"]


def test_unknown_labels_of_a_mixed_batch_are_not_scored(tmp_path: Path) -> None:
    class Partly:
        """A mixed stream of which every third label is unknown."""

        def __init__(self) -> None:
            self.inner = open_stream("digits:mixed", size=24, batch_size=10, corruptions=NAMES)

        def __getattr__(self, name: str):
            return getattr(self.inner, name)

        def __len__(self) -> int:
            return len(self.inner)

        def __iter__(self):
            for batch in self.inner:
                batch.labels[::3] = -1
                yield batch

    plan = mixed_plan("source", seeds=(0,))
    results = Results.of(run(Plan(stream=lambda _: Partly(), model=plan.model, methods=plan.methods), tmp_path))
    wrong: dict[int, list[bool]] = {}
    for batch in Partly():
        flags = plan.model(batch.images).argmax(1) != batch.labels
        for domain, flag, label in zip(batch.domains.tolist(), flags.tolist(), batch.labels.tolist(), strict=True):
            if label >= 0:
                wrong.setdefault(domain, []).append(flag)
    assert results.domain_errors("source").tolist() == pytest.approx([percent(wrong[d]) for d in range(3)])


# -- the tally -------------------------------------------------------------------------------------------


def test_a_tally_by_hand() -> None:
    fog, snow = Segment("fog", 5), Segment("snow", 5)
    tally = DomainTally((fog, snow), source=snow)
    assert tally.macro is tally.pooled is tally.source_error is None
    images = torch.zeros(4, 3, 2, 2)
    batch = Batch(images, torch.tensor([0, 1, -1, 1]), torch.arange(4), fog, 0, torch.tensor([0, 0, 1, 1]))
    tally.add(batch, torch.tensor([True, False, False, True]), torch.tensor([True, True, False, True]))
    assert tally.counts() == {"fog": (1, 2), "snow": (1, 1)}
    assert tally.percent() == {"fog": 50.0, "snow": 100.0}
    assert tally.macro == 75.0 and tally.pooled == pytest.approx(200 / 3) and tally.source_error == 100.0
    untold = Batch(images, torch.zeros(4, dtype=torch.int64), torch.arange(4), fog, 1)
    tally.add(untold, torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool))
    assert tally.counts() == {"fog": (1, 6), "snow": (1, 1)}
    maps = Batch(images, torch.zeros(4, 2, 2), torch.arange(4), snow, 2)
    tally.add(maps, torch.ones(4, 2, 2, dtype=torch.bool), torch.ones(4, 2, 2, dtype=torch.bool))
    assert tally.counts()["snow"] == (17, 17)


def test_severities_stand_apart() -> None:
    assert list(DomainTally((Segment("fog", 1), Segment("fog", 5))).counts()) == ["fog 1", "fog 5"]


def test_a_unit_keeps_a_tally() -> None:
    plan = mixed_plan()
    stream = plan.stream(0)
    unit = Unit(
        "tent", 0, acclimate.adapt(plan.model, "tent", seed=0), tally=DomainTally(stream.domains, stream.source)
    )
    for batch in stream:
        unit.answer(batch)
    wrong, after = answered(plan, "tent", 0)
    assert unit.tally.percent() == pytest.approx({name: percent(wrong[name]) for name in unit.tally.counts()})
    assert unit.probe(stream.held_out()) == {"errors": sum(after), "scored": len(after)}


def test_what_is_forgotten() -> None:
    assert forgotten(12.5, 10.0) == 2.5
    assert forgotten(None, 10.0) is None and forgotten(5.0, float("nan")) is None


def test_the_probe_teaches_nothing() -> None:
    plan = mixed_plan()
    adapted = acclimate.adapt(plan.model, "tent", seed=0)
    unit = Unit("tent", 0, adapted)
    stream = plan.stream(0)
    unit.answer(next(iter(stream)))
    before = {name: weight.clone() for name, weight in adapted.state.weights.items()}
    counts = unit.probe(stream.held_out())
    assert counts["scored"] == sum(len(batch.images) for batch in stream.held_out()) > 0
    assert all(torch.equal(before[name], weight) for name, weight in adapted.state.weights.items())
    wrong, scored = mistakes(torch.eye(3), torch.tensor([0, 2, -1]))
    assert (wrong.tolist(), scored.tolist()) == ([False, True, False], [True, True, False])
