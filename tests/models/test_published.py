"""Checkpoints in the forms they are published in, and everything that is none."""

from __future__ import annotations

import argparse
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from acclimate.models import AggregatedResidualNet, BottleneckNet, WideResidualNet, load_model, load_weights
from acclimate.models.published import read_checkpoint

Tensors = dict[str, Tensor]
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
HALF = torch.full((1, 3, 1, 1), 0.5)


def wide(seed: int = 0) -> nn.Module:
    return WideResidualNet(5, depth=10, width=1, seed=seed).eval()


def aggregated(seed: int = 0) -> nn.Module:
    return AggregatedResidualNet(5, depth=11, planes=8, seed=seed).eval()


def fifty(seed: int = 0) -> nn.Module:
    return BottleneckNet(5, blocks=(1, 1, 1, 1), width=4, seed=seed).eval()


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def training(tensors: Tensors) -> dict[str, object]:
    """What a training script leaves."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {"epoch": 199, "model": "resnext", "state_dict": tensors, "best_acc": 0.8, "optimizer": optimizer}


IMAGENET = {
    "normalize.mean": torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1),
    "normalize.std": torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1),
}


@pytest.mark.parametrize(
    ("build", "publish", "name", "zipped"),
    [
        (wide, lambda t: {"state_dict": t}, "Standard.pt", True),
        (wide, lambda t: {"state_dict": under("module.", t)}, "Standard.pt", False),
        (aggregated, lambda t: training(under("module.", t)), "model_best.pth.tar", False),
        (aggregated, lambda t: {**t, "mu": HALF, "sigma": HALF}, "robust.pt", True),
        (aggregated, lambda t: {**under("module.", t), "mu": HALF[0], "sigma": torch.tensor(0.5)}, "robust.pt", True),
        (fifty, lambda t: t, "resnet50.pth", True),
        (fifty, lambda t: t, "resnet50.pth", False),
        (fifty, lambda t: {**under("model.", t), **IMAGENET}, "resnet50.pt", True),
        (fifty, lambda t: {"model": under("module.model.", t)}, "resnet50.ckpt", True),
        (fifty, lambda t: under("_orig_mod.module.", t), "no-suffix", True),
        (wide, lambda t: {k: v for k, v in t.items() if "num_batches" not in k}, "old.pt", False),
    ],
)
def test_published_forms_are_loaded_whole(
    tmp_path: Path, build: Callable[..., nn.Module], publish: Callable[[Tensors], object], name: str, zipped: bool
):
    source, model = build(seed=1), build(seed=2)
    with torch.no_grad():
        expected = source(IMAGES)
        assert not torch.allclose(model(IMAGES), expected)
        torch.save(publish(source.state_dict()), tmp_path / name, _use_new_zipfile_serialization=zipped)
        load_weights(model, tmp_path / name)
        assert torch.equal(model(IMAGES), expected)


def test_safetensors_are_renamed_too(tmp_path: Path):
    save_file({**under("model.", fifty(seed=1).state_dict()), **IMAGENET}, tmp_path / "w.safetensors")
    model = fifty()
    load_weights(model, tmp_path / "w.safetensors")
    with torch.no_grad():
        assert torch.equal(model(IMAGES), fifty(seed=1)(IMAGES))


def test_a_prefix_of_the_models_own_stays(tmp_path: Path):
    own = nn.ModuleDict({"model": nn.Linear(2, 2)})
    torch.save(under("module.", own.state_dict()), tmp_path / "w.pt")
    other = nn.ModuleDict({"model": nn.Linear(2, 2)})
    load_weights(other, tmp_path / "w.pt")
    assert torch.equal(other["model"].weight, own["model"].weight)


def test_another_normalisation_is_refused(tmp_path: Path):
    """WRN "Standard" takes raw images; a file with another mean belongs to another model."""
    torch.save({**wide().state_dict(), "mu": HALF, "sigma": HALF}, tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=r"normalises images by mu = \[0\.5, 0\.5, 0\.5\], but .* \[0\.0, 0\.0, 0\.0\]"
    ):
        load_weights(wide(), tmp_path / "w.pt")
    half = WideResidualNet(5, depth=10, width=1, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), seed=3)
    load_weights(half, tmp_path / "w.pt")
    assert torch.equal(half.state_dict()["fc.weight"], wide().state_dict()["fc.weight"])


def test_a_buffer_called_mean_of_the_users_model_is_no_normaliser(tmp_path: Path):
    model = nn.Linear(2, 2)
    torch.save({**model.state_dict(), "mean": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"unexpected: 1 \(mean\)"):
        load_weights(model, tmp_path / "w.pt")


def test_what_is_missing_and_unexpected_is_told_at_once(tmp_path: Path):
    tensors = fifty().state_dict()
    del tensors["fc.bias"]
    torch.save({"state_dict": {**tensors, "head.bias": torch.zeros(2)}}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"does not fit BottleneckNet .*missing: 1 \(fc\.bias\); unexpected: 1 \(head"):
        load_weights(fifty(), tmp_path / "w.pt")


class Runs:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(tmp_path: Path, zipped: bool):
    victim = tmp_path / "victim"
    torch.save({**wide().state_dict(), "x": Runs(victim)}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"can run code: it needs \w+\.mkdir\. Where you trust"):
        load_weights(wide(), tmp_path / "w.pt")
    assert not victim.exists()
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert victim.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda t: {"state_dict": t, "args": argparse.Namespace()}, r"it needs argparse\.Namespace"),
        (lambda t: wide(), "it needs .*WideResidualNet"),
        (lambda t: {"epoch": 3, "weights": t}, "holds a dict with the keys epoch, weights; expected tensors by name"),
        (lambda t: list(t.values()), "holds list; expected tensors by name"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Callable[[Tensors], object], message: str):
    torch.save(content(wide().state_dict()), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message):
        load_weights(wide(), tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [-100, 100_000, 64])
def test_a_cut_download_is_refused(tmp_path: Path, zipped: bool, kept: int):
    path = tmp_path / "w.pt"
    torch.save(wide().state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    with pytest.raises(ValueError, match=r"not a readable torch\.save file .*Fetch it again|holds 64 bytes, but the"):
        load_weights(wide(), path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\n <!DOCTYPE html><html>Google Drive can't scan this file", "is a web page, not weights"),
        (b"<html><body>404", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"", "holds 0 bytes, but the model has"),
        (b"not weights at all", "holds 18 bytes, but the model has 78,"),
    ],
)
@pytest.mark.parametrize("name", ["Standard.pt", "w.safetensors"])
def test_pages_and_pointers_are_named(tmp_path: Path, name: str, text: bytes, message: str):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(ValueError, match=message):
        load_weights(wide(), tmp_path / name)


def test_archives_and_missing_files(tmp_path: Path):
    torch.save(wide().state_dict(), tmp_path / "w.pt")
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        archive.add(tmp_path / "w.pt", "w.pt")
    with pytest.raises(ValueError, match=r"is a tar archive.*Unpack it"):
        load_weights(wide(), tmp_path / "w.tar")
    with pytest.raises(FileNotFoundError, match=r"no file of weights .*nowhere\.pt"):
        read_checkpoint(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("name", ["wrn-28-10", "wrn-16-4", "resnext-29", "resnet-50"])
def test_published_models_ask_for_weights(name: str):
    with pytest.raises(ValueError, match=f"'{name}' brings no weights; pass a file"):
        load_model(name)


def test_published_models_are_loaded_by_name(tmp_path: Path):
    source = WideResidualNet(depth=16, width=4, seed=7)
    torch.save({"state_dict": under("module.", source.state_dict())}, tmp_path / "w.pt")
    model = load_model("wrn-16-4", tmp_path / "w.pt", classes=10)
    assert not model.training
    assert torch.equal(model.state_dict()["fc.weight"], source.fc.weight)
