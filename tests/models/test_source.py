"""The source models, trained and cached or shared."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from acclimate.models import RECIPES, load_model, source_model
from acclimate.models.cache import cache_folder, kept_weights
from acclimate.models.files import write_tensors
from acclimate.models.training import accuracy
from acclimate.streams import load_dataset, open_stream


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the trained digits model."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCLIMATE_CACHE", str(folder))
        source_model("digits")
    return folder


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a recipe of one epoch; the file which is going to be written."""
    recipe = replace(RECIPES["digits-resnet"], epochs=1)
    monkeypatch.setitem(RECIPES, "digits-resnet", recipe)
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path))
    return tmp_path / f"models/digits-resnet-{recipe.digest()}.safetensors"


def error(model: nn.Module, corruptions: list[str]) -> float:
    wrong = total = 0
    for batch in open_stream("digits:continual", corruptions=corruptions):
        with torch.no_grad():
            wrong += int((model(batch.images).argmax(1) != batch.labels).sum())
        total += len(batch.labels)
    return wrong / total


def test_digits_are_read_and_shifts_hurt(trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCLIMATE_CACHE", str(trained))
    model = source_model("digits")
    assert accuracy(model, load_dataset("digits", "test")) >= 0.97
    assert 0.2 < error(model, ["impulse_noise", "snow", "brightness", "elastic_transform", "jpeg_compression"]) < 0.7
    assert not model.training
    assert load_model("digits-resnet", classes=10).state_dict().keys() == model.state_dict().keys()


def test_the_model_is_trained_once(quick: Path):
    epochs: list[int] = []
    first = source_model("digits", progress=lambda e, *_: epochs.append(e))
    second = source_model("digits:continual", progress=lambda e, *_: epochs.append(e))
    assert epochs == [1]
    assert [path.name for path in quick.parent.iterdir()] == [quick.name]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_another_recipe_is_trained_anew(quick: Path, monkeypatch: pytest.MonkeyPatch):
    source_model("digits")
    monkeypatch.setitem(RECIPES, "digits-resnet", replace(RECIPES["digits-resnet"], learning_rate=0.02))
    source_model("digits")
    assert len(list(quick.parent.iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_caches_are_trained_anew(quick: Path, damage: str, caplog: pytest.LogCaptureFixture):
    source_model("digits")
    good = quick.read_bytes()
    quick.write_bytes({"truncated": good[:-9], "flipped": good[:-1] + bytes([good[-1] ^ 1]), "empty": b""}[damage])
    with caplog.at_level(logging.WARNING, "acclimate"):
        source_model("digits")
    assert "trained again" in caplog.text
    assert quick.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_done_without(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "acclimate"):
        assert not source_model("digits").training
    assert "cannot be cached" in caplog.text


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ACCLIMATE_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert cache_folder() == Path("/own")
    monkeypatch.delenv("ACCLIMATE_CACHE")
    assert cache_folder() == Path("/shared/acclimate")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/acclimate"


def test_missing_weights_and_unknown_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCLIMATE_SHARED", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="acclimate train cifar10-resnet20"):
        source_model("cifar10")
    with pytest.raises(ValueError, match=r"no source model for the data set 'cifar100c'.*load_model"):
        source_model("cifar100c:/data")


@pytest.mark.real_data
def test_the_shared_source_model(shared: Path):
    model = source_model("cifar10c:/data")
    assert sum(p.numel() for p in model.parameters()) == 269_722
    assert load_model("cifar10-resnet20", classes=10).state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["digits-vit", "digits-resnet-gn"])
def test_other_models_of_the_digits_are_trained_where_there_are_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = replace(RECIPES[name], epochs=1)
    monkeypatch.setitem(RECIPES, name, recipe)
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path))
    model = load_model(name, classes=10)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [f"{name}-{recipe.digest()}.safetensors"]
    again = load_model(name, progress=lambda *_: pytest.fail("trained twice"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    kinds = {type(module).__name__ for module in model.modules()}
    assert ("LayerNorm" in kinds, "GroupNorm" in kinds) == (name.endswith("vit"), name.endswith("gn"))
    assert "BatchNorm2d" not in kinds


@pytest.mark.parametrize("name", ["cifar10-vit", "cifar10-resnet20-gn"])
def test_what_takes_long_to_train_is_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"acclimate train {name}"):
        load_model(name)
    kept = kept_weights(RECIPES[name])
    kept.parent.mkdir()
    made = RECIPES[name].build(seed=3)
    write_tensors(kept, made.state_dict(), {})
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), load_model(name).parameters(), strict=True))
    kept.write_bytes(kept.read_bytes()[:-9])
    with pytest.raises(ValueError, match="safetensors"):
        load_model(name)
