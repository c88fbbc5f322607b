from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from acclimate.fields.recommendation.data.clicks import Clicks
from acclimate.fields.recommendation.data.splits import Split
from acclimate.fields.recommendation.merging.merged import Merged, merge
from acclimate.fields.recommendation.models.registry import build
from acclimate.fields.recommendation.training.learning import Recipe, answers, train

SIZES = (12, 9, 4)


TABLE = 1.5 * torch.randn(12, 9, generator=torch.Generator().manual_seed(7))


def known(rows: Clicks) -> float:
    """The AUC of who knows the chances."""
    return float(roc_auc_score(rows.labels.numpy(), TABLE[rows.ids[:, 0], rows.ids[:, 1] - 12].numpy()))


def made(rows: int = 9000, seed: int = 0) -> Split:
    """Clicks that depend on pairs of ids."""
    generator = torch.Generator().manual_seed(7)
    generator.manual_seed(seed)
    local = torch.stack([torch.randint(size, (rows,), generator=generator) for size in SIZES], 1)
    labels = torch.bernoulli(TABLE[local[:, 0], local[:, 1]].sigmoid(), generator=generator)
    whole = Clicks(local + torch.tensor([0, 12, 21]), labels, SIZES, ("user", "item", "hour"))
    return Split(*(whole.take(part) for part in torch.arange(rows).split(rows // 3)))


QUICK = Recipe(learning_rate=1e-2, batch_size=128, epochs=4)


def test_a_ranker_learns_and_is_written_as_it_ends(tmp_path: Path) -> None:
    split, model = made(), build("fnn", SIZES, preset="small")
    seen: list[tuple[int, int]] = []
    path = train(
        model, split, QUICK, tmp_path / "m.safetensors", progress=lambda e, n, loss, right: seen.append((e, n))
    )
    found = answers(model, split.test).numpy()
    assert roc_auc_score(split.test.labels.numpy(), found) > 0.9 * known(split.test) > 0.7
    assert path.is_file() and seen[0] == (1, 4)
    again, third = build("fnn", SIZES, preset="small"), build("fnn", SIZES, preset="small")
    before = torch.get_rng_state()
    train(again, split, QUICK, tmp_path / "again.safetensors")
    assert torch.equal(before, torch.get_rng_state())  # dropout draws privately
    assert np.array_equal(answers(again, split.test).numpy(), found)
    train(third, split, QUICK, tmp_path / "third.safetensors", seed=1)
    assert not np.array_equal(answers(third, split.test).numpy(), found)


def test_a_group_of_one_is_plain_training(tmp_path: Path) -> None:
    split = made()
    alone, group = build("dcnv2", SIZES, preset="small"), Merged([build("dcnv2", SIZES, preset="small")])
    train(alone, split, QUICK, tmp_path / "a.safetensors")
    train(group, split, QUICK, tmp_path / "g.safetensors")
    for ours, theirs in zip(alone.parameters(), group.members[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_group_of_two_learns_on_the_mean(tmp_path: Path) -> None:
    split = made()
    group = merge([build("fnn", SIZES, preset="small", seed=seed) for seed in (0, 1)])
    train(group, split, QUICK, tmp_path / "g.safetensors")
    labels = split.test.labels.numpy()
    each = group.each(split.test.ids).detach()
    torch.testing.assert_close(answers(group, split.test), each.mean(0))
    assert roc_auc_score(labels, each.mean(0).numpy()) > 0.9 * known(split.test) and not torch.equal(each[0], each[1])


def test_the_epoch_that_is_judged_best_is_kept(tmp_path: Path) -> None:
    """With one epoch more or less, the model is the better of both on validation rows."""
    split = made()
    recipe = Recipe(learning_rate=3e-2, batch_size=64, epochs=8, patience=8, judge="log_loss")
    losses = []
    for epochs in range(1, 9):
        model = build("fnn", SIZES, preset="small")
        train(
            model,
            split,
            Recipe(learning_rate=3e-2, batch_size=64, epochs=epochs, patience=8, judge="log_loss"),
            tmp_path / f"{epochs}.safetensors",
        )
        z = answers(model, split.validation).double()
        losses.append(float(torch.nn.functional.binary_cross_entropy_with_logits(z, split.validation.labels.double())))
    assert losses == sorted(losses, reverse=True)  # the best so far never gets worse
    assert losses[0] > losses[-1] and losses[-1] == losses[-2]  # and the last epochs, which overfit, are not kept
    assert recipe.judge == "log_loss"


def test_rows_of_one_label_are_refused(tmp_path: Path) -> None:
    split = made()
    positive = split.train.take(split.train.labels == 1)
    with pytest.raises(ValueError, match="training rows have one label only"):
        train(build("fnn", SIZES), Split(positive, split.validation, split.test), QUICK, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="validation rows have one label only"):
        train(build("fnn", SIZES), Split(split.train, positive, split.test), QUICK, tmp_path / "m.safetensors")
    for wrong in ({"learning_rate": 0.0}, {"patience": 0}, {"judge": "loss"}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Recipe(**wrong)  # type: ignore[arg-type]
