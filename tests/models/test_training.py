"""Training: deterministic, resumable, without the global generators."""

import json
import logging
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.models import RECIPES, WideResidualNet, train
from acclimate.models.augment import flipped, shifted
from acclimate.models.files import read_tensors
from acclimate.streams import Dataset, load_dataset

RECIPE = "digits-resnet"


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    whole = load_dataset("digits", "train")
    few = Dataset("digits", whole.read(torch.arange(110)), whole.labels[:110], whole.classes, "train")
    monkeypatch.setattr("acclimate.models.training.load_dataset", lambda *_, **__: few)
    monkeypatch.setitem(RECIPES, RECIPE, replace(RECIPES[RECIPE], shift=2, flip=True, label_smoothing=0.1))
    return few


def bits(path: Path) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in read_tensors(path)[0].items()}


class StoppedError(Exception):
    pass


def stop_after(epoch: int):
    def progress(done: int, *_: float) -> None:
        if done == epoch:
            raise StoppedError

    return progress


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_is_uninterrupted_bit_for_bit(optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(RECIPES, RECIPE, replace(RECIPES[RECIPE], optimizer=optimizer))
    whole = train(RECIPE, output=tmp_path / "whole.safetensors", epochs=3)
    for epoch in (1, 2):
        with pytest.raises(StoppedError):
            train(RECIPE, output=tmp_path / "parts.safetensors", epochs=3, progress=stop_after(epoch))
        assert not (tmp_path / "parts.safetensors").exists()
        assert (tmp_path / "parts.partial.safetensors").exists()
    epochs: list[int] = []
    parts = train(RECIPE, output=tmp_path / "parts.safetensors", epochs=3, progress=lambda e, *_: epochs.append(e))
    assert epochs == [3]
    assert bits(parts) == bits(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts.safetensors", "whole.safetensors"]


def test_half_precision_learns_keeps_float32_weights_and_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def build(seed: int) -> WideResidualNet:
        return WideResidualNet(depth=10, width=1, seed=seed)

    monkeypatch.setitem(RECIPES, RECIPE, replace(RECIPES["wrn-16-4"], name=RECIPE, build=build, warmup=0.5))
    losses: list[float] = []
    half = train(RECIPE, output=tmp_path / "w.safetensors", epochs=3, amp=True, progress=lambda *c: losses.append(c[2]))
    assert losses[-1] < losses[0]
    assert {value.dtype for value in read_tensors(half)[0].values()} == {torch.float32, torch.int64}
    with pytest.raises(StoppedError):
        train(RECIPE, output=tmp_path / "parts.safetensors", epochs=3, amp=True, progress=stop_after(1))
    with pytest.raises(ValueError, match="checkpoint of another run"):
        train(RECIPE, output=tmp_path / "parts.safetensors", epochs=3)
    assert bits(train(RECIPE, output=tmp_path / "parts.safetensors", epochs=3, amp=True)) == bits(half)
    assert bits(train(RECIPE, output=tmp_path / "full.safetensors", epochs=3)) != bits(half)


def test_training_is_decided_by_the_seed(tmp_path: Path):
    first = train(RECIPE, output=tmp_path / "1.safetensors", epochs=1)
    torch.rand(3)
    with torch.inference_mode():
        second = train(RECIPE, output=tmp_path / "2.safetensors", epochs=1)
    other = train(RECIPE, output=tmp_path / "3.safetensors", epochs=1, seed=1)
    assert bits(first) == bits(second) != bits(other)


def test_the_global_generators_are_left_alone(tmp_path: Path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    train(RECIPE, output=tmp_path / "w.safetensors", epochs=1)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_progress_and_the_header(tmp_path: Path):
    calls: list[tuple[int, int, float, float]] = []
    path = train(RECIPE, output=tmp_path / "w.safetensors", epochs=4, progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert calls[-1][2] < calls[0][2]
    assert all(0 <= call[3] <= 1 for call in calls)
    header = json.loads(read_tensors(path)[1]["training"])
    assert (header["name"], header["epochs"], header["seed"]) == (RECIPE, 4, 0)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path):
    output = tmp_path / "w.safetensors"
    with pytest.raises(StoppedError):
        train(RECIPE, output=output, epochs=2, progress=stop_after(1))
    for other in ({"epochs": 3}, {"epochs": 2, "seed": 1}):
        with pytest.raises(ValueError, match=r"checkpoint of another run.*resume=False"):
            train(RECIPE, output=output, **other)
    fresh = train(RECIPE, output=output, epochs=1, resume=False)
    assert bits(fresh) == bits(train(RECIPE, output=tmp_path / "again.safetensors", epochs=1))


def test_a_damaged_checkpoint_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "w.partial.safetensors").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING, "acclimate"):
        train(RECIPE, output=tmp_path / "w.safetensors", epochs=1)
    assert "training starts anew" in caplog.text


def test_data_sets_of_the_wrong_values_diverge_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(RECIPES, RECIPE, replace(RECIPES[RECIPE], learning_rate=1e30))
    with pytest.raises(FloatingPointError, match="diverged in epoch"):
        train(RECIPE, output=tmp_path / "w.safetensors", epochs=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits-resne", {}, "no recipe 'digits-resne'. Did you mean 'digits-resnet'"),
        (RECIPE, {"output": "w.pt"}, r"ends in \.safetensors"),
        (RECIPE, {"epochs": 0}, "epochs is 0"),
        (RECIPE, {"seed": -1}, "seed -1"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, name: str, options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        train(name, **{"output": tmp_path / "w.safetensors", **options})  # pyright: ignore[reportArgumentType]


def test_the_rate_rises_and_falls():
    recipe = replace(RECIPES[RECIPE], learning_rate=1.0, warmup=0.25)
    rates = [recipe.rate(step, 40) for step in range(40)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert max(rates) == rates[9] == 1 and rates[39] == pytest.approx(0, abs=1e-9)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert recipe.rate(24, 40) == pytest.approx(0.5)


def test_a_recipe_has_a_digest_of_its_choices():
    recipe = RECIPES[RECIPE]
    assert recipe.digest() == replace(recipe).digest() != replace(recipe, epochs=1).digest()


def test_shifts_move_whole_images():
    images = torch.zeros(200, 3, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 1
    moved = shifted(images, 2, torch.Generator().manual_seed(0))
    assert (moved.sum((2, 3)) == 1).all() and torch.equal(moved[:, 0], moved[:, 2])
    places = {tuple(place.tolist()) for place in moved[:, 0].nonzero()[:, 1:]}
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}
    assert shifted(torch.ones(1, 1, 3, 3), 3, torch.Generator().manual_seed(1)).sum() < 9


def test_mirrors_are_of_half_the_images():
    images = torch.arange(4.0).expand(200, 1, 1, 4)
    found = flipped(images, torch.Generator().manual_seed(0))
    mirrored = (found == images.flip(3)).all(3).sum()
    assert 70 < mirrored < 130 and ((found == images) | (found == images.flip(3))).all()
