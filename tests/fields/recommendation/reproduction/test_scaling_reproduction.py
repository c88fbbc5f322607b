from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from acclimate.fields.recommendation.data.sets import load_set
from acclimate.fields.recommendation.merging.controls import averaged_weights, dropout_draws, field_masks, noise_draws
from acclimate.fields.recommendation.models.counting import Cost
from acclimate.fields.recommendation.models.registry import build
from acclimate.fields.recommendation.reproduction import reproduce_scaling
from acclimate.fields.recommendation.reproduction.budgets import Point, equal_line
from acclimate.fields.recommendation.reproduction.comparing import Found, Judge
from acclimate.fields.recommendation.reproduction.drifting import Drifted, drift_grid
from acclimate.fields.recommendation.reproduction.figures import budget_figure
from acclimate.fields.recommendation.reproduction.members import Member, Order, Stock
from acclimate.fields.recommendation.reproduction.merges import trained_as_one
from acclimate.fields.recommendation.reproduction.streams import broken, broken_stream
from acclimate.fields.recommendation.reproduction.study import Scaled, Study
from acclimate.fields.recommendation.training.learning import Recipe

SMALL = Study(
    bases=("fnn",), factors=(2.0,), rates=(3e-2, 1e-2), decays=(1e-6,), options={},
    recipe=Recipe(epochs=2, batch_size=64), planted=400,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in Criteo's layout; two categories say something about the label."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name, rows in (("train", 600), ("dev", 200), ("test", 300)):
        first, second = random.integers(0, 4, rows), random.integers(0, 4, rows)
        chance = 1 / (1 + np.exp(-2.0 * np.where(first == second, 1.0, -1.0)))
        labels = (random.random(rows) < chance).astype(int)
        numbers = random.integers(0, 3, (rows, 13))
        others = random.integers(0, 2, (rows, 24))
        lines = [
            "\t".join([str(y), *map(str, n), f"a{a}", f"b{b}", *(f"c{o}" for o in rest)])
            for y, n, a, b, rest in zip(labels, numbers, first, second, others, strict=True)
        ]
        (folder / f"criteo.{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def table(folder: Path, key: str) -> dict[str, dict[str, str]]:
    with (folder / "tables" / f"{key}.csv").open() as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_the_whole_comparison_on_files_made_in_a_layout(data: Path, tmp_path: Path) -> None:
    told: list[str] = []
    pages = reproduce_scaling(
        tmp_path, data=data, methods=("fnn", "dcn", "ipnn", "deepfm"), seeds=(0, 1), study=SMALL,
        progress=lambda done, total, note: told.append(note),
    )  # fmt: skip
    assert all(page.is_file() for page in pages) and told
    split = load_set("criteo", data)
    stock, labels = Stock(tmp_path, "criteo", split), split.test.labels.numpy()
    rows = table(tmp_path, "criteo-models")
    for name, row in rows.items():
        recipe = Recipe(epochs=2, batch_size=64, learning_rate=float(row["rate"]))
        own = stock.have([Order(model=name, seed=seed, recipe=recipe) for seed in (0, 1)])
        z = np.stack([each.test.numpy() for each in own])
        aucs = [roc_auc_score(labels, each) for each in z]
        assert row["AUC"] == f"{np.mean(aucs):.4f} ± {np.std(aucs, ddof=1):.4f}"
        p = 1 / (1 + np.exp(-z.mean(0)))
        assert row["log loss, merged"] == f"{log_loss(labels, p):.4f}"
        other = 1e-2 if recipe.learning_rate == 3e-2 else 3e-2
        tried = [
            stock.have([Order(model=name, recipe=Recipe(epochs=2, batch_size=64, learning_rate=rate))])[0].validation
            for rate in (recipe.learning_rate, other)
        ]
        held = split.validation.labels.numpy()
        losses = [log_loss(held, 1 / (1 + np.exp(-each.numpy()))) for each in tried]
        assert losses[0] <= losses[1]
    assert len(table(tmp_path, "criteo-equal")) == 4 and len(table(tmp_path, "planted-drift")) == 4 + 2 + 1
    scaling = table(tmp_path, "criteo-scaling")
    assert float(scaling["fnn, 2 seeds merged"]["compute"]) == 2.0
    assert any(name.startswith("fnn, width x") for name in scaling)
    told.clear()
    again = reproduce_scaling(
        tmp_path, data=data, methods=("fnn", "dcn", "ipnn", "deepfm"), seeds=(0, 1), study=SMALL,
        progress=lambda done, total, note: told.append(note),
    )  # fmt: skip
    assert not told and again == pages  # all members were kept


def test_members_are_the_same_alone_and_side_by_side(data: Path, tmp_path: Path) -> None:
    split = load_set("criteo", data)
    orders = [Order(model=name, recipe=SMALL.recipe) for name in ("fnn", "fnn+dcn")]
    one, two = Stock(tmp_path / "one", "criteo", split), Stock(tmp_path / "two", "criteo", split)
    for alone, beside in zip(one.have(orders), two.have(orders, jobs=2), strict=True):
        assert torch.equal(alone.test, beside.test)
    assert torch.equal(two.model(orders[1])(split.test.ids).double(), two.have(orders)[1].test)


def test_a_broken_field_is_unknown_and_nothing_else_changes(data: Path) -> None:
    rows = load_set("criteo", data).test
    found = broken(rows, 3)
    assert bool((found.ids[:, 3] == rows.offsets[3] + rows.sizes[3] - 1).all())
    assert torch.equal(found.ids[:, [0, 1, 2, 4]], rows.ids[:, [0, 1, 2, 4]])
    stream = broken_stream(rows, 3)
    third = len(rows) // 3
    unknown = stream.ids[:, 3] == rows.offsets[3] + rows.sizes[3] - 1
    assert bool(unknown[third : 2 * third].all()) and not bool(unknown[:third].any())
    assert float(stream.labels[2 * third :].mean()) > float(rows.labels.mean()) + 0.05


def test_controls_change_what_they_say() -> None:
    model = build("fnn", (4, 5, 6), preset="small").eval()
    ids = torch.tensor([[0, 4, 9], [3, 8, 14]])
    with torch.no_grad():
        rows = model.embedding(ids)
        masked = field_masks(model, ids)
        for field in range(3):
            kept = torch.zeros_like(rows)
            kept[:, field] = rows[:, field]
            torch.testing.assert_close(masked[field], model.score(kept))
        noisy = noise_draws(model, ids, draws=400, scale=0.01)
        torch.testing.assert_close(noisy.mean(0), model(ids), atol=0.01, rtol=0)
        assert 0 < float(noisy.std(0).max()) < 0.1
        dropped = dropout_draws(model, ids, draws=50)
        assert float(dropped.std(0).min()) > float(noisy.std(0).max()) and not model.training
        assert torch.equal(model(ids), model(ids))  # dropout is off again
    other = build("fnn", (4, 5, 6), preset="small", seed=1)
    mean = averaged_weights([model.state_dict(), other.state_dict()])
    key = "embedding.weight"
    torch.testing.assert_close(mean[key], (model.embedding.weight + other.embedding.weight).detach() / 2)
    with pytest.raises(ValueError, match="same names and shapes"):
        averaged_weights([model.state_dict(), build("fnn", (4, 5, 7)).state_dict()])


def test_what_cannot_be_compared_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two or more of each"):
        reproduce_scaling(tmp_path, data=data, seeds=(0,))
    with pytest.raises(ValueError, match="model must be one of"):
        reproduce_scaling(tmp_path, data=data, methods=("fnn", "gbm"))
    with pytest.raises(ValueError, match="no set 'movielens'"):
        reproduce_scaling(tmp_path, data=data, sets=("criteo", "movielens"))
    assert not list(tmp_path.iterdir())  # before anything is trained
    for wrong, told in (
        ({"seeds": (-1, 0)}, r"seeds\[0\]"),
        ({"factors": (0.5,)}, r"factors\[0\]"),
        ({"rates": ()}, "rates"),
    ):
        with pytest.raises(ValueError, match=told):
            Study(**wrong)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        reproduce_scaling(tmp_path, data=tmp_path / "nothing")


def test_the_order_of_fm_has_no_options_it_has_not(data: Path, tmp_path: Path) -> None:
    stock = Stock(tmp_path, "criteo", load_set("criteo", data))
    study = Study(models=("fm", "fnn"), bases=("fm",), factors=(2.0,), seeds=(0, 1), rates=(1e-2,), decays=(1e-6,),
                  recipe=Recipe(epochs=1))  # fmt: skip
    members = study.members(stock)
    assert [members[name][0].order.options for name in ("fm", "fnn")] == [{}, {"bn": True}]
    assert [each.kind for each in study.enlarged(stock)] == ["embedding"]
    (group, _) = trained_as_one(stock, study, ["fm", "fnn"], None)
    assert group.order.options == {"bn": True} and stock.model(group.order)(stock.split.test.ids[:2]).shape == (2,)


def test_what_is_trained_as_one_is_tuned_as_each_is(data: Path, tmp_path: Path) -> None:
    stock = Stock(tmp_path, "criteo", load_set("criteo", data))
    study = Study(models=("fnn", "dcn"), seeds=(0, 1), rates=(1e-5, 3e-2), decays=(1e-6,),
                  recipe=Recipe(epochs=2, batch_size=64))  # fmt: skip
    group = trained_as_one(stock, study, ["fnn", "dcn"], None)
    held = stock.split.validation.labels.numpy()
    tried = [
        stock.have([replace(group[0].order, recipe=replace(study.recipe, learning_rate=rate, weight_decay=1e-6))])[0]
        for rate in study.rates
    ]
    losses = [log_loss(held, 1 / (1 + np.exp(-each.validation.numpy()))) for each in tried]
    assert {each.order.recipe.learning_rate for each in group} == {study.rates[int(np.argmin(losses))]}
    assert [each.order.seed for each in group] == [0, 1]


def test_deviations_are_those_of_samples() -> None:
    found = Found((0.5, 0.7), (0.3, 0.3))
    assert found.cells() == ["0.6000 ± 0.1414", "0.3000 ± 0.0000"]
    assert Found((0.5,), (0.3,)).cells() == ["0.5000", "0.3000"]


def test_error_bars_are_deviations() -> None:
    base = Point("fnn", "base", 1000, 1, 1, 1, Found((0.5, 0.7, 0.9), (1, 1, 1)), [])
    wide = Point("fnn", "width x 2", 2000, 1, 1, 1, Found((0.8,), (1,)), [])
    bars = budget_figure([base, wide], "fnn", "AUC").axes[0].containers[0][2][0].get_segments()
    assert bars[0][:, 1].tolist() == pytest.approx([0.5, 0.9])
    assert all(not len(each) or bool(np.isnan(each[:, 1]).all()) for each in bars[1:])  # one value has no deviation


def test_delays_are_within_the_stream() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(300, generator=generator) < 0.5).float()
    found = Drifted(
        ["a", "b"], torch.randn(2, 300, generator=generator).double(), labels, torch.tensor([0.5, 0.5]).double()
    )
    names = [line.name for line in drift_grid("x", found, (0, 299, 300)).lines]
    assert [name for name in names if "on line" in name] == [f"on line, labels after {k} rows" for k in (0, 299)]


def test_the_mean_gain_has_its_own_interval() -> None:
    """Over seeds that gain and lose alike the mean is nought, and so are both ends of its interval."""
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(0, 2, 200).astype(float))
    a = torch.from_numpy(random.normal(size=200)) + labels
    b = a - 0.7 * labels
    orders = [Order(model="fnn", seed=seed) for seed in (0, 1)]
    cost = Cost(10, 1, 1, 1)
    wide = Scaled(
        "fnn", "width", 2.0, 2.0, tuple(Member(o, z, z, cost, 0.0) for o, z in zip(orders, (b, a), strict=True))
    )
    members = {"fnn": [Member(o, z, z, cost, 0.0) for o, z in zip(orders, (a, b), strict=True)]}
    line = equal_line(members, ["fnn"], wide, Judge(labels, labels, 200))
    assert line.cells[3] == "+0.0000 [+0.0000, +0.0000]" and line.cells[5] == "1 of 2"
