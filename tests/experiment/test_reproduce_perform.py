"""Trials for real: the same numbers as a run, in this process, in several, on Ray."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from acclimate.core.method import methods
from acclimate.core.storage import fingerprint
from acclimate.experiment import Plan, Results, run
from acclimate.experiment.reproduce import BENCHMARKS, Request, Site, Store, choose_parts, reproduce
from acclimate.experiment.reproduce.perform import perform
from acclimate.experiment.reproduce.schedule import Here, Processes, attempt

MODEL = """
from torch import nn
from acclimate.models.initial import private_init


def build():
    with private_init(0):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
        )
"""


@pytest.fixture
def request_(site: Site) -> Request:
    return Request(
        benchmark=BENCHMARKS["digits"], model="net", weights=fingerprint(site.source()), size=24, gradual_size=12,
        batch_size=12,
    )  # fmt: skip


def test_a_trial_gives_the_numbers_of_a_run(site: Site, request_: Request, tmp_path: Path) -> None:
    choice = request_.stream("continual")
    plan = Plan(
        stream=lambda seed: site.stream(choice, seed),
        model=site.source(),
        methods={"tent": methods.build("tent"), "palm": methods.build("palm:cifar10-c")},
        seeds=(3,),
    )
    results = Results.of(run(plan, tmp_path / "run"))
    seeded = replace(request_, seeds=(3,))
    for label in ("tent", "palm"):
        (trial,) = seeded.trials(label)
        outcome = perform(trial, site)
        assert list(outcome.errors) == pytest.approx(results.segment_errors(label).tolist(), rel=1e-12)
        assert outcome.mean_error() == pytest.approx(results.mean_error(label))
        rows = results.tracks(label)[3].rows
        assert outcome.facts["forwards"] == sum(row.forwards for row in rows) / len(rows)
        if label == "palm":
            share = [row.values["parameter_share"] for row in rows]
            assert outcome.mean_value("parameter_share") == pytest.approx(sum(share) / len(share))
            assert set(outcome.importance) == {"0.weight", "1.weight", "1.bias"}
            assert all(len(values) == 15 for values in outcome.importance.values())
    assert outcome.facts["stream"] == results.header.stream["fingerprints"]["3"]


def test_the_gate_of_cotta_follows_the_model(site: Site, request_: Request) -> None:
    (trial,) = request_.trials("cotta", "validation", copies=1, restoration=0.0)
    assert trial.fit_gate
    outcome = perform(replace(trial, stream=replace(trial.stream, corruptions=("spatter",))), site)
    confidence = outcome.facts["threshold"]
    # an untrained net of ten classes is nowhere near the published 0.92
    assert 0 <= confidence < 0.5
    assert replace(trial, fit_gate=False).key != trial.key
    (plain,) = request_.trials("tent")
    assert replace(plain, fit_gate=False).key == plain.key


def test_a_published_network_keeps_the_published_gate() -> None:
    request = Request(benchmark=BENCHMARKS["cifar10c"], model="wrn-28-10")
    assert not request.trials("cotta")[0].fit_gate


def test_methods_that_measure_the_source_get_training_images(site: Site, request_: Request) -> None:
    asking = [name for name, cls in methods.classes().items() if "source images" in cls.card.needs]
    assert asking
    (trial,) = request_.trials(asking[0])
    outcome = perform(trial, site)
    assert outcome.facts["source"]["split"] == "train"
    told = attempt(trial, replace(site, validation=("digits", "test")))
    assert isinstance(told, str) and "training images" in told


def test_one_methods_fault_is_its_own(site: Site, request_: Request, tmp_path: Path) -> None:
    request = replace(request_, methods=("bn", "lame", "palm"))
    broken = tmp_path / "flat.py"
    broken.write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))\n"
    )
    site = replace(site, model=f"{broken}:build")
    _, _, failed = reproduce(choose_parts(("1",)), request, site, tmp_path, crew=Here(), title="T")
    assert any(key.startswith("palm-") for key in failed)


def test_several_processes_give_the_same_files(site: Site, request_: Request, tmp_path: Path) -> None:
    request = replace(request_, methods=("source", "bn", "tent"))
    for folder, crew in (("one", Here()), ("two", Processes(2))):
        reproduce(choose_parts(("1",)), request, site, tmp_path / folder, crew=crew, title="T")
    files = sorted(path.name for path in (tmp_path / "one/trials").iterdir())
    assert len(files) == 3 and files == sorted(path.name for path in (tmp_path / "two/trials").iterdir())
    for name in files:
        ours, theirs = (json.loads((tmp_path / each / "trials" / name).read_text()) for each in ("one", "two"))
        assert ours["errors"] == theirs["errors"] and ours["trial"] == theirs["trial"]
    assert (tmp_path / "one/tables/table-1.csv").read_text() == (tmp_path / "two/tables/table-1.csv").read_text()


def test_interrupted_processes_end(site: Site, request_: Request, tmp_path: Path) -> None:
    def stop(*_) -> None:
        raise KeyboardInterrupt

    before = set(multiprocessing.active_children())
    request = replace(request_, methods=("source", "bn", "tent", "palm"), size=200)
    with pytest.raises(KeyboardInterrupt):
        reproduce(choose_parts(("1",)), request, site, tmp_path, crew=Processes(1), title="T", progress=stop)
    left = set(multiprocessing.active_children()) - before
    for child in left:
        child.join(20)
    assert not any(child.is_alive() for child in left)
    assert len(Store(tmp_path)) == 1


def test_ray_gives_the_same_table(site: Site, request_: Request, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from acclimate.experiment.reproduce.ray import Ray

    request = replace(request_, methods=("source", "bn"))
    for folder, crew in (("here", Here()), ("ray", Ray(jobs=1))):
        reproduce(choose_parts(("1",)), request, site, tmp_path / folder, crew=crew, title="T")
    here, there = (tmp_path / folder / "tables/table-1.csv" for folder in ("here", "ray"))
    assert here.read_text() == there.read_text()


def test_without_ray_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import acclimate.experiment.reproduce.ray as module

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(module, "import_module", absent)
    with pytest.raises(ImportError, match=r'pip install "acclimate\[ray\]"'):
        module.Ray()
