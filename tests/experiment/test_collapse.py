"""Distances to the classifier by severity against oracles of their own; kept severities; what is written."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acclimate.core.method import methods
from acclimate.core.storage import read_state
from acclimate.experiment.collapse import CollapsePlan, Level, _estimate, measure_collapse, source_collapse
from acclimate.experiment.collapse_report import collapse_reading, write_collapse
from acclimate.experiment.neural_collapse import neural_collapse
from acclimate.models import source_model
from acclimate.streams import Batch, DatasetStream, load_dataset, open_stream

CORRUPTIONS = ("fog", "contrast")


def stream(severity: int, size: int = 24) -> DatasetStream:
    return open_stream(
        f"digits:{'continual' if severity else 'clean'}",
        size=size,
        batch_size=12,
        severity=severity or 5,
        corruptions=CORRUPTIONS if severity else None,
    )


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()  # fmt: skip


def plan(model: nn.Module | None = None, severities: tuple[int, ...] = (0, 3, 5), *names: str) -> CollapsePlan:
    chosen = {name: methods.build(name) for name in names or ("bn",)}
    return CollapsePlan(stream=stream, model=model or net(), methods=chosen, severities=severities)


def angle_distance(h: list[float], w: list[float]) -> float:
    """The chord between two directions, by the law of cosines."""
    dot = sum(a * b for a, b in zip(h, w, strict=True))
    cosine = dot / math.sqrt(sum(a * a for a in h) * sum(b * b for b in w))
    return math.sqrt(2 - 2 * cosine)


def expected(model: nn.Module, batches: DatasetStream) -> dict[str, float]:
    """Mean distances of one severity, answer by answer."""
    truth: dict[str, list[float]] = {"all": [], "right": [], "wrong": []}
    answer: dict[str, list[float]] = {"all": [], "right": [], "wrong": []}
    for batch in batches:
        with torch.no_grad():
            h = model[:-1](batch.images).double()
            z = model[-1](h.float())
        rows = model[-1].weight.detach().double().tolist()
        for feature, logits, label in zip(h.tolist(), z, batch.labels.tolist(), strict=True):
            given = int(logits.argmax())
            for name in ("all", "right" if given == label else "wrong"):
                truth[name].append(angle_distance(feature, rows[label]))
                answer[name].append(angle_distance(feature, rows[given]))
    means = {f"truth {name}": sum(values) / len(values) for name, values in truth.items() if len(values) >= 10}
    means |= {f"answer {name}": sum(values) / len(values) for name, values in answer.items() if len(values) >= 10}
    return means | {"error": 100 * len(truth["wrong"]) / len(truth["all"]), "samples": len(truth["all"])}


def told(level: Level) -> dict[str, float]:
    found = {f"truth {name}": each.mean for name, each in level.truth.items()}
    found |= {f"answer {name}": each.mean for name, each in level.answer.items()}
    found |= {"error": level.error, "samples": level.samples}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def test_distances_before_and_after_equal_an_oracle(tmp_path: Path) -> None:
    """Before: the model as it is. After bn: each batch by its own statistics, which torch's own layers compute."""
    levels = measure_collapse(plan(), tmp_path)
    assert [(level.severity, level.label) for level in levels] == [
        (severity, label) for severity in (0, 3, 5) for label in ("source", "bn")
    ]
    plain, by_batch = net(), net()
    by_batch[1].track_running_stats = False
    by_batch[1].running_mean = by_batch[1].running_var = None
    for before, after in zip(levels[::2], levels[1::2], strict=True):
        for level, model in ((before, plain), (after, by_batch)):
            assert told(level) == pytest.approx(expected(model, stream(level.severity)), abs=1e-5)
        assert before.change is None
        assert after.change is not None
        assert after.change.mean == pytest.approx(after.truth["all"].mean - before.truth["all"].mean, abs=1e-6)
        assert after.change.low < after.change.mean < after.change.high


def test_an_answer_is_measured_before_it_is_learned_from(tmp_path: Path) -> None:
    """The first batch of an adapting model stands as it does without learning; the last one does not."""

    def one(severity: int) -> DatasetStream:
        return stream(severity, size=12)

    def two(severity: int) -> DatasetStream:
        return stream(severity, size=24)

    found = {}
    for name in ("bn", "tent"):
        for length, make in (("one", one), ("two", two)):
            fast = methods.classes()[name](**({"learning_rate": 0.1} if name == "tent" else {}))
            chosen = CollapsePlan(stream=make, model=net(), methods={"x": fast}, severities=(0,))
            found[name, length] = measure_collapse(chosen, tmp_path)[1].truth["all"].mean
    assert found["tent", "one"] == pytest.approx(found["bn", "one"], abs=1e-6)
    assert found["tent", "two"] != pytest.approx(found["bn", "two"], abs=1e-4)


class Interrupted(Exception):
    pass


class Watched(DatasetStream):
    """Counts the batches that are made."""

    made = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            type(self).made += 1
            yield batch


def test_finished_severities_are_kept(tmp_path: Path) -> None:
    def watched(severity: int) -> DatasetStream:
        opened = stream(severity)
        opened.__class__ = Watched
        return opened

    wanted = CollapsePlan(stream=watched, model=net(), methods={"tent": methods.build("tent")}, severities=(0, 3, 5))
    whole = measure_collapse(wanted, tmp_path / "whole")
    told_of: list[tuple[int, int]] = []

    def stop(done: int, total: int, where: str) -> None:
        told_of.append((done, total))
        if where == "severity 3, contrast":
            raise Interrupted

    with pytest.raises(Interrupted):
        measure_collapse(wanted, tmp_path / "parts", progress=stop)
    assert told_of == [(done, 10) for done in range(1, 6)]  # 2 clean batches, 2 of fog, the first of contrast
    assert len(list((tmp_path / "parts" / "levels").iterdir())) == 2
    Watched.made = 0
    again = measure_collapse(wanted, tmp_path / "parts")
    assert Watched.made == 8
    assert [told(level) for level in again] == [told(level) for level in whole]
    assert [level.truth["all"] for level in again] == [level.truth["all"] for level in whole]
    Watched.made = 0
    measure_collapse(wanted, tmp_path / "parts")
    assert Watched.made == 0
    measure_collapse(plan(None, (0, 3, 5), "tent", "bn"), tmp_path / "parts")
    assert len(list((tmp_path / "parts" / "levels").iterdir())) == 9  # bn came, and nothing was run twice


def test_misalignment_grows_with_severity_and_adaptation_takes_some_back(tmp_path: Path) -> None:
    """On a trained model, as the paper says: wrong answers far from their class and near the one they chose."""
    wanted = CollapsePlan(
        stream=lambda severity: stream(severity, size=100),
        model=source_model("digits"),
        methods={"nctta": methods.build("nctta")},
        severities=(0, 2, 5),
    )
    levels = {(level.severity, level.label): level for level in measure_collapse(wanted, tmp_path)}
    before = [levels[severity, "source"].truth["all"] for severity in (0, 2, 5)]
    assert before[0].mean < before[1].mean < before[2].mean
    assert before[0].high < before[2].low
    worst, adapted = levels[5, "source"], levels[5, "nctta"]
    assert worst.truth["wrong"].mean > worst.truth["right"].mean
    assert worst.answer["wrong"].mean < worst.truth["wrong"].mean
    assert adapted.change is not None and adapted.change.high < 0
    assert adapted.error < worst.error


def test_intervals_are_over_images() -> None:
    """Ten segments with the same images say no more than one; independent ones narrow it by sqrt(10)."""
    random = np.random.default_rng(0)
    drawn = random.multinomial(400, np.full(400, 1 / 400), size=2000)
    one = random.normal(1.0, 0.1, size=(1, 400))
    whole = np.ones((10, 400), dtype=bool)
    half = {}
    for name, values in {"copied": np.repeat(one, 10, 0), "fresh": random.normal(1.0, 0.1, size=(10, 400))}.items():
        found = _estimate(values, whole, drawn)
        assert found.mean == pytest.approx(values.mean())
        half[name] = (found.high - found.low) / 2
    assert half["copied"] == pytest.approx(1.96 * 0.1 / math.sqrt(400), rel=0.1)
    assert half["fresh"] == pytest.approx(1.96 * 0.1 / math.sqrt(4000), rel=0.1)
    few = np.zeros((10, 400), dtype=bool)
    few[0, :9] = True
    assert math.isnan(_estimate(np.ones((10, 400)), few, drawn).mean)
    few[0, :10] = True
    assert _estimate(np.ones((10, 400)), few, drawn).mean == 1


def test_rows_that_are_not_fit_are_left_out(tmp_path: Path) -> None:
    """A black image has no direction to speak of: it is neither learned from nor counted."""

    class Black(DatasetStream):
        def __iter__(self) -> Iterator[Batch]:
            for batch in super().__iter__():
                batch.images[:3] = 0
                yield batch

    def black(severity: int) -> DatasetStream:
        opened = stream(severity)
        opened.__class__ = Black
        return opened

    chosen = CollapsePlan(stream=black, model=net(), methods={"bn": methods.build("bn")}, severities=(5,))
    for level in measure_collapse(chosen, tmp_path):
        assert level.samples == 48 - 4 * 3
        assert math.isfinite(level.truth["all"].mean)


def test_images_without_a_label_are_left_out(tmp_path: Path) -> None:
    """They are answered and learned from with the others, and not counted."""

    class Unknown(DatasetStream):
        def __iter__(self) -> Iterator[Batch]:
            for batch in super().__iter__():
                batch.labels[:5] = -1
                yield batch

    def unknown(severity: int) -> DatasetStream:
        opened = stream(severity)
        opened.__class__ = Unknown
        return opened

    found = {}
    for name, make in (("some", unknown), ("all", stream)):
        chosen = CollapsePlan(stream=make, model=net(), methods={"bn": methods.build("bn")}, severities=(5,))
        found[name] = measure_collapse(chosen, tmp_path / name)[1]
        (path,) = [p for p in (tmp_path / name / "levels").iterdir() if read_state(p)[1]["label"] == "bn"]
        found[name, "truth"] = read_state(path)[0]["truth"].unflatten(1, (2, 12))
    assert (found["some"].samples, found["all"].samples) == (28, 48)
    assert found["some", "truth"][:, :, :5].isnan().all()
    assert torch.equal(found["some", "truth"][:, :, 5:], found["all", "truth"][:, :, 5:])


def simplex(classes: int) -> Tensor:
    return torch.eye(classes, dtype=torch.float64) - 1 / classes


def test_a_collapsed_classifier_measures_nought() -> None:
    labels = torch.arange(5).repeat(4)
    weight = 3 * simplex(5)
    features = 0.7 * simplex(5)[labels]
    found = neural_collapse(features, labels, weight, labels)
    for name in ("nc1", "nc2_norms", "nc2_angles", "nc3", "nc4", "nc3_plus"):
        assert getattr(found, name) == pytest.approx(0, abs=1e-9), name
    assert found.samples == 20


def test_collapse_equals_its_definitions() -> None:
    random = np.random.default_rng(1)
    h, w, labels = random.normal(size=(40, 6)), random.normal(size=(4, 6)), np.arange(40) % 4
    answers = random.integers(4, size=40)
    found = neural_collapse(*(torch.tensor(each) for each in (h, labels, w, answers)))
    means = np.stack([h[labels == c].mean(0) for c in range(4)])
    centred = means - h.mean(0)
    within = sum(np.outer(x - means[c], x - means[c]) for x, c in zip(h, labels, strict=True)) / 40
    between = sum(np.outer(m, m) for m in centred) / 4
    assert found.nc1 == pytest.approx(np.trace(within @ np.linalg.pinv(between)) / 4)
    norms = np.sqrt((centred**2).sum(1))
    assert found.nc2_norms == pytest.approx(np.std(norms) / norms.mean())
    angles = [centred[i] @ centred[j] / norms[i] / norms[j] for i in range(4) for j in range(4) if i != j]
    assert found.nc2_angles == pytest.approx(np.mean([abs(cosine + 1 / 3) for cosine in angles]))
    assert found.nc3 == pytest.approx(
        np.sqrt(((w / np.sqrt((w**2).sum()) - centred / np.sqrt((centred**2).sum())) ** 2).sum())
    )
    nearest = [int(np.argmin([((x - m) ** 2).sum() for m in means])) for x in h]
    assert found.nc4 == pytest.approx(np.mean([n != a for n, a in zip(nearest, answers, strict=True)]))
    plus = [angle_distance(list(x), list(w[c])) for x, c in zip(h, labels, strict=True)]
    assert found.nc3_plus == pytest.approx(np.mean(plus))


def test_a_class_without_images_is_refused() -> None:
    h = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="needs a labelled image of each; the source images have 2 classes"):
        neural_collapse(h, torch.tensor([0, 1, 0, 1, 0, 1]), torch.eye(3), torch.zeros(6, dtype=torch.int64))


def test_the_trained_source_is_nearer_to_collapse_than_an_untrained_one() -> None:
    dataset = load_dataset("digits", "train")
    trained = source_collapse(source_model("digits"), dataset, count=400)
    fresh = source_collapse(net(), dataset, count=400)
    assert trained.nc1 < fresh.nc1
    assert trained.nc4 < 0.05 < fresh.nc4
    assert trained.nc3_plus < fresh.nc3_plus


@pytest.mark.parametrize("severities", [(), (6,), (1, 1)])
def test_bad_severities(severities: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected some of 0 to 5, each once"):
        plan(None, severities)


def test_models_without_a_classifier_are_refused(tmp_path: Path) -> None:
    headless = nn.Sequential(nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="what a linear classifier is fed"):
        measure_collapse(plan(headless), tmp_path)


def test_what_is_written_is_what_was_measured(tmp_path: Path) -> None:
    levels = measure_collapse(plan(None, (0, 5), "bn", "tent"), tmp_path)
    source = source_collapse(net(), load_dataset("digits", "train"), count=200)
    markdown, html = write_collapse(tmp_path, levels, source=source, protocol="a protocol", about="by hand")
    whole = json.loads((tmp_path / "collapse.json").read_text("utf-8"))
    assert [(each["severity"], each["label"]) for each in whole["levels"]] == [(x.severity, x.label) for x in levels]
    assert whole["levels"][-1]["truth"]["all"]["mean"] == levels[-1].truth["all"].mean
    assert whole["source"]["nc1"] == source.nc1
    with (tmp_path / "tables" / "collapse.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, level in zip(rows, levels, strict=True):
        assert row["name"] == f"severity {level.severity}, {level.label}"
        assert float(row["G-FCA"]) == pytest.approx(level.truth["all"].mean, abs=6e-4)
        assert float(row["error, %"]) == pytest.approx(level.error)
    text = html.read_text("utf-8")
    assert "data:image/png;base64," in text and "<script" not in text and "http" not in text.replace("http-equiv", "")
    assert collapse_reading(levels) in markdown.read_text("utf-8")
    assert (tmp_path / "figures" / "collapse.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_is_extended_and_never_replaced(tmp_path: Path) -> None:
    first = measure_collapse(plan(None, (0, 5), "bn"), tmp_path)
    write_collapse(tmp_path, first)
    more = measure_collapse(plan(None, (0, 3, 5), "tent", "bn"), tmp_path)
    write_collapse(tmp_path, more)
    kept = {(level.severity, level.label): level.kept for level in more}
    assert all(kept[level.severity, level.label] == level.kept for level in first)
    assert len(set(kept.values())) == len(kept) == 9
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for other in (
        plan(None, (0, 5), "tent", "bn"),
        plan(None, (0, 3, 5), "bn"),
        replace(plan(None, (0, 3, 5), "tent", "bn"), seed=1),
        replace(plan(), methods={"bn": methods.build("bn"), "tent": replace(methods.build("tent"), steps=2)}),
        replace(
            plan(None, (0, 3, 5), "tent", "bn"), stream=lambda s: open_stream("digits:clean", size=20, batch_size=10)
        ),
    ):
        with pytest.raises(ValueError, match=r"would replace: severity \d, \w+.*Name another folder \(--out"):
            measure_collapse(other, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"levels": [{"label": "bn", "severity": 5}]}'])
def test_a_table_of_another_kind_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "collapse.json").write_text(text)
    with pytest.raises(ValueError, match=r"collapse.json is not a table that can be continued. Name another folder"):
        measure_collapse(plan(None, (0,)), tmp_path)


def test_the_reading_says_which_way(tmp_path: Path) -> None:
    levels = measure_collapse(plan(None, (0, 5), "bn"), tmp_path)
    said = collapse_reading(levels)
    grows = levels[2].truth["all"].mean > levels[0].truth["all"].mean
    assert ("class grows" in said) == grows
    assert ("does not grow" in said) != grows
    turned = collapse_reading([*levels[2:], *levels[:2]])
    assert turned == said  # by severity, not by place
