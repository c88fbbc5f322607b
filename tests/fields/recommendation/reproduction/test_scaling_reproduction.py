from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from acclimate.fields.recommendation.data.sets import load_set
from acclimate.fields.recommendation.merging.controls import averaged_weights, dropout_draws, field_masks, noise_draws
from acclimate.fields.recommendation.models.registry import build
from acclimate.fields.recommendation.reproduction import reproduce_scaling
from acclimate.fields.recommendation.reproduction.members import Order, Stock
from acclimate.fields.recommendation.reproduction.streams import broken, broken_stream
from acclimate.fields.recommendation.reproduction.study import Study
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
        assert row["AUC"] == f"{np.mean(aucs):.4f} ± {np.std(aucs):.4f}"
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
    assert len(table(tmp_path, "criteo-equal")) == 4 and len(table(tmp_path, "planted-drift")) == 4 + 2 + 3
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
        reproduce_scaling(tmp_path, data=data, sets=("movielens",))
    with pytest.raises(FileNotFoundError):
        reproduce_scaling(tmp_path, data=tmp_path / "nothing")
