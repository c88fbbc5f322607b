from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from acclimate.fields.recommendation.data.clicks import Clicks
from acclimate.fields.recommendation.data.splits import Split
from acclimate.fields.recommendation.merging.folder import load_member
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


def test_rows_of_one_label_are_refused(tmp_path: Path) -> None:
    split = made()
    positive = split.train.take(split.train.labels == 1)
    with pytest.raises(ValueError, match=r"The training part has \d+ rows that are all labelled 1"):
        train(build("fnn", SIZES), Split(positive, split.validation, split.test), QUICK, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="The validation part has"):
        train(build("fnn", SIZES), Split(split.train, positive, split.test), QUICK, tmp_path / "m.safetensors")
    decays = [{"weight_decay": value} for value in (-1.0, float("nan"), float("inf"), "0")]
    for wrong in ({"learning_rate": 0.0}, {"patience": 0}, {"judge": "loss"}, {"batch_size": 0}, *decays):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Recipe(**wrong)  # type: ignore[arg-type]


class Stopped(BaseException):
    pass


def test_what_train_writes_can_be_loaded(tmp_path: Path) -> None:
    split, model = made(600), build("deepfm", SIZES, preset="small", width=6, seed=3)
    path = train(model, split, Recipe(epochs=1), tmp_path / "m.safetensors")
    again = load_member(path)
    assert torch.equal(answers(again, split.test), answers(model, split.test))


@pytest.mark.parametrize("within", [False, True])
def test_an_interrupted_training_goes_on_with_the_same_model(tmp_path: Path, within: bool) -> None:
    """After an epoch or in the middle of one, with the model as it was left or with a new one."""
    split, recipe = made(900), Recipe(batch_size=64, epochs=4, learning_rate=1e-2)
    whole = train(build("fnn", SIZES, preset="small"), split, recipe, tmp_path / "whole.safetensors")

    def interrupted(path: Path) -> nn.Module:
        model, calls = build("fnn", SIZES, preset="small"), [0]

        def stop(*_: object) -> None:
            calls[0] += model.training or not within
            if calls[0] == (13 if within else 2):
                raise Stopped

        hook = model.register_forward_pre_hook(stop) if within else None
        with pytest.raises(Stopped):
            train(model, split, recipe, path, progress=None if within else stop)
        if hook is not None:
            hook.remove()
        return model

    left = interrupted(tmp_path / "same.safetensors")
    same = train(left, split, recipe, tmp_path / "same.safetensors")
    interrupted(tmp_path / "new.safetensors")
    new = train(build("fnn", SIZES, preset="small"), split, recipe, tmp_path / "new.safetensors")
    assert whole.read_bytes() == same.read_bytes() == new.read_bytes()
    interrupted(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="checkpoint of another run"):
        train(build("fnn", SIZES, preset="small", seed=1), split, recipe, tmp_path / "other.safetensors")


def test_stopped_before_the_first_epoch_the_model_is_as_it_was(tmp_path: Path) -> None:
    split, model, calls = made(900), build("fnn", SIZES, preset="small"), [0]
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def stop(*_: object) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise Stopped

    model.register_forward_pre_hook(stop)
    with pytest.raises(Stopped):
        train(model, split, Recipe(batch_size=64, epochs=2), tmp_path / "m.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batch_normalisation_and_a_rest_of_one_row(tmp_path: Path) -> None:
    split = made(900)
    odd = Split(split.train.take(torch.arange(129)), split.validation, split.test)
    model, sizes = build("fnn", SIZES, preset="small", bn=True), list[int]()
    model.register_forward_pre_hook(lambda module, ids: sizes.append(len(ids[0])) if module.training else None)
    train(model, odd, Recipe(batch_size=64, epochs=1), tmp_path / "m.safetensors")
    assert sizes == [64, 65]


def test_rows_go_where_the_model_is() -> None:
    """`meta` stands for an accelerator: what is there has a device and no numbers."""

    class Elsewhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(2, device="meta"))

        def forward(self, ids: Tensor) -> Tensor:
            assert ids.device.type == "meta"
            return torch.zeros(len(ids))

    assert answers(Elsewhere(), made(600).test).device.type == "cpu"


def test_models_built_and_trained_in_threads_are_those_built_alone(tmp_path: Path) -> None:
    split, recipe = made(600), Recipe(batch_size=32, epochs=2)
    alone = [build("fnn", SIZES, preset="small", seed=seed).state_dict()["embedding.weight"] for seed in range(4)]
    trained = train(build("fnn", SIZES, preset="small"), split, recipe, tmp_path / "alone.safetensors").read_bytes()
    before, wrong = torch.get_rng_state(), list[int]()

    def building(seed: int) -> None:
        for _ in range(30):
            found = build("fnn", SIZES, preset="small", seed=seed).state_dict()["embedding.weight"]
            wrong.extend([seed] * (not torch.equal(found, alone[seed])))

    def training() -> None:
        train(build("fnn", SIZES, preset="small"), split, recipe, tmp_path / "beside.safetensors")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=building, args=(seed,)) for seed in range(4)]
        threads.append(threading.Thread(target=training))
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong and (tmp_path / "beside.safetensors").read_bytes() == trained
    assert torch.equal(before, torch.get_rng_state())
