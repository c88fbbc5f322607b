"""Mixing domains: which trials are asked for, what the table makes of them, and what a real trial counts."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import acclimate
from acclimate.core.method import methods
from acclimate.core.normalization import normalizations
from acclimate.experiment.reproduce import BENCHMARKS, Outcome, Request, Site, Trial, choose_parts, reproduce
from acclimate.experiment.reproduce.mixing import Mixing
from acclimate.experiment.reproduce.perform import perform
from acclimate.experiment.reproduce.schedule import Done
from acclimate.models import load_model
from acclimate.streams import open_stream

STREAMS = ("continual", "mixed", "correlated", "dynamic", "potpourri+")
REQUEST = Request(
    benchmark=BENCHMARKS["digits"], model="net", weights="f00d", networks={"net": "f00d", "vit": "beef"}, size=40
)
SOURCE = {"continual": 40.0, "mixed": 41.0, "correlated": 42.0, "dynamic": 43.0, "potpourri+": 44.0}


class MadeUp:
    """Errors by hand: tent is 5 points better on `net`, and 2 worse on the mixed stream with `vit`."""

    def __init__(self, unfit: Sequence[str] = ()) -> None:
        self.unfit = unfit
        self.ran: list[Trial] = []

    def work(self, trials: Sequence[Trial], site: Site) -> Iterator[Done]:
        for trial in trials:
            self.ran.append(trial)
            if trial.method in self.unfit and trial.model == "vit":
                yield trial, "it has no batch norm. Take another."
                continue
            kind = trial.stream.spec.partition(":")[2]
            gain = 0.0 if trial.method == "source" else -2.0 if (kind, trial.model) == ("mixed", "vit") else 5.0
            error = SOURCE[kind] - gain + trial.seed
            facts = {
                "stream": f"{kind}-fingerprint",
                "domains": {"fog": error - 1, "snow": error + 3, "unseen": None},
                "source_error": 10.0 if trial.method == "source" else 17.0,
                "held_out_error": 11.0 if trial.method == "source" else 10.5,
            }
            yield trial, Outcome(segments=[[kind, 0]], errors=[error], facts=facts)


def do(folder: Path, crew: MadeUp | None, request: Request = REQUEST) -> dict[str, dict[str, str]]:
    parts = choose_parts(paper="mixed")
    reproduce(parts, request, Site(model=None), folder, crew=crew, title="Streams of mixing domains")
    rows: dict[str, dict[str, str]] = {}
    for path in sorted((folder / "tables").glob("*.csv")):
        rows |= {f"{path.stem} {row['name']}": row for row in csv.DictReader(path.read_text().splitlines())}
    return rows


def test_gains_are_points_below_the_source_and_losses_are_marked_and_counted(tmp_path: Path) -> None:
    rows = do(tmp_path, MadeUp(), replace(REQUEST, methods=("tent",), seeds=(0, 1)))
    source = rows["table-mixed-net source, error"]
    assert [float(source[kind]) for kind in STREAMS] == [error + 0.5 for error in SOURCE.values()]
    assert [float(rows["table-mixed-net tent"][kind]) for kind in STREAMS] == [5.0] * 5
    vit = rows["table-mixed-vit tent"]
    assert [float(vit[kind]) for kind in (*STREAMS, "mean")] == [5.0, -2.0, 5.0, 5.0, 5.0, 3.6]
    counts = rows["table-mixed-counts tent"]
    assert counts["cells below the source"] == "1 of 10"
    assert (float(counts["mean gain"]), float(counts["worst"]), counts["where"]) == (4.3, -2.0, "mixed, vit")
    page = (tmp_path / "reproduce.html").read_text()
    assert re.findall(r'<td class="bad">([^<]+)</td>', page) == ["-2.0", "-2.0"]
    text = (tmp_path / "reproduce.md").read_text()
    assert text.count("**-2.0**") == 2
    assert "mixed mixed-finger" in text
    assert (tmp_path / "figures/mixed-vit.png").stat().st_size > 1000


def test_forgetting_is_against_the_unadapted_model_on_the_same_samples(tmp_path: Path) -> None:
    rows = do(tmp_path, MadeUp(), replace(REQUEST, methods=("tent",)))
    tent = rows["table-mixed-forgetting tent on net"]
    found = {key: float(tent[key]) for key in ("pooled", "domains", "worst domain", "source samples")}
    assert found == {"pooled": 39.0, "domains": 40.0, "worst domain": 42.0, "source samples": 17.0}
    assert (float(tent["forgotten"]), float(tent["forgotten after"])) == (7.0, -0.5)
    assert float(rows["table-mixed-forgetting source on net"]["forgotten"]) == 0.0


def test_what_a_network_cannot_take_is_asked_for_once_and_told(tmp_path: Path) -> None:
    crew = MadeUp(unfit=("tent",))
    do(tmp_path, crew, replace(REQUEST, methods=("tent",), absent={"gn": "train it."}))
    asked = [trial.stream.spec for trial in crew.ran if trial.method == "tent" and trial.model == "vit"]
    assert asked[0] == "digits:continual"
    text = (tmp_path / "reproduce.md").read_text()
    assert "tent did not run on vit: it has no batch norm." in text
    assert "gn is not there: train it." in text
    again = MadeUp(unfit=("tent",))
    do(tmp_path, again, replace(REQUEST, methods=("tent",)))
    assert {(trial.method, trial.model) for trial in again.ran} == {("tent", "vit")}


def test_on_the_digits_everything_runs_and_elsewhere_the_chosen_few() -> None:
    def labels(name: str) -> set[str]:
        request = replace(REQUEST, benchmark=BENCHMARKS[name], networks={"net": "f00d"})
        return {trial.label.partition(" on ")[0] for trial in Mixing().wanted(request, _Empty(), {})}  # pyright: ignore[reportArgumentType]

    every = {name.partition(":")[0].partition(" (")[0] for name in labels("digits")}
    assert every == set(methods.classes())
    told = labels("digits")
    statistics = {name for name in normalizations.classes() if name not in ("source", "learned", "robust")}
    assert all(any(f"bn (normalization={name})" == label for label in told) for name in statistics)
    few = {name.partition(":")[0].partition(" (")[0] for name in labels("cifar10")}
    assert few < every
    assert len(few) >= 8


class _Empty:
    def all(self, trials: Sequence[Trial]) -> None:
        return None


def test_a_real_trial_counts_domains_and_what_was_forgotten() -> None:
    """Tent on a few digits: the trial's domain errors and held-out error are those of a loop by hand."""
    request = replace(REQUEST, size=12, batch_size=30, networks={"digits-resnet": "x"})
    (trial,) = request.trials("tent", "potpourri+", "digits-resnet")
    outcome = perform(trial, Site(model=None))
    stream = open_stream("digits:potpourri+", size=12, batch_size=30)
    adapted = acclimate.adapt(load_model("digits-resnet"), "tent")
    wrong: dict[str, list[bool]] = {}
    for batch in stream:
        flags = adapted(batch.images).argmax(1) != batch.labels
        for flag, domain in zip(flags.tolist(), batch.domains.tolist(), strict=True):
            wrong.setdefault(stream.domains[domain].name, []).append(flag)
    expected = {name: 100 * sum(flags) / len(flags) for name, flags in wrong.items()}
    assert outcome.facts["domains"] == pytest.approx(expected)
    assert stream.source is not None
    assert outcome.facts["source_error"] == pytest.approx(expected[stream.source.name])
    with adapted.frozen():
        held = torch.cat([adapted(batch.images).argmax(1) != batch.labels for batch in stream.held_out()])
    assert len(held) > 0
    assert outcome.facts["held_out_error"] == pytest.approx(100 * held.float().mean().item())
    every = [flag for flags in wrong.values() for flag in flags]
    assert outcome.mean_error() == pytest.approx(100 * sum(every) / len(every))
