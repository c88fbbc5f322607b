"""Structural clones, what a model is made of, and bytes of tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acclimate.anatomy import (
    affine_norms,
    batch_norms,
    class_count,
    convolutions_and_norms,
    explain_input,
    head,
    norm_layers,
    takes_indices,
)
from acclimate.core.clone import structural_clone
from acclimate.core.meter import tensor_bytes
from conformance.models import MODELS


@pytest.mark.parametrize("model", MODELS)
def test_clones_share_parameters_and_copy_buffers(model: str) -> None:
    factory, batch = MODELS[model]
    original = factory()
    modes = [module.training for module in original.modules()]
    clone = structural_clone(original)
    assert [module.training for module in original.modules()] == modes
    assert not any(module.training for module in clone.modules())
    theirs = dict(original.named_parameters(remove_duplicate=False))
    for name, parameter in clone.named_parameters(remove_duplicate=False):
        assert parameter is not theirs[name] and parameter.data_ptr() == theirs[name].data_ptr()
        assert not parameter.requires_grad and theirs[name].requires_grad
    buffers = dict(original.named_buffers())
    for name, buffer in clone.named_buffers():
        assert buffer.numel() == 0 or buffer.data_ptr() != buffers[name].data_ptr()
    with torch.no_grad():
        assert torch.equal(clone(batch(0)), factory().eval()(batch(0)))


def test_clones_keep_ties() -> None:
    clone = structural_clone(MODELS["tied"][0]())
    assert clone.norm1.weight is clone.norm2.weight and clone.again is clone.norm2


def test_clones_can_be_rewired() -> None:
    original = MODELS["batch_norm"][0]()
    clone = structural_clone(original)
    clone.norm1 = nn.Identity()
    clone.head.weight = nn.Parameter(torch.zeros(5, 12))
    assert isinstance(original.norm1, nn.BatchNorm2d) and float(original.head.weight.detach().abs().sum()) > 0


def test_scripted_models_are_refused() -> None:
    scripted = torch.jit.ScriptModule.__new__(torch.jit.ScriptModule)
    with pytest.raises(ValueError, match="script"):
        structural_clone(scripted)


def test_norms_are_found_by_type() -> None:
    assert list(norm_layers(MODELS["vit"][0]())) == ["norm1", "norm2", "norm3"]
    assert list(batch_norms(MODELS["sync_batch_norm"][0]())) == ["norm1", "norm2"]
    assert not batch_norms(MODELS["group_norm"][0]()) and not norm_layers(MODELS["no_norm"][0]())
    assert list(affine_norms(MODELS["batch_norm"][0]())) == [
        "norm1.weight",
        "norm1.bias",
        "norm2.weight",
        "norm2.bias",
    ]
    assert not affine_norms(MODELS["batch_norm_without_affine"][0]())
    assert list(affine_norms(MODELS["tied"][0]())) == ["norm1.weight", "norm1.bias", "norm2.bias"]
    assert not any("head" in name for name in convolutions_and_norms(MODELS["batch_norm"][0]()))
    assert "conv.weight" in convolutions_and_norms(MODELS["no_norm"][0]())


def test_head_and_classes() -> None:
    for model, (factory, _) in MODELS.items():
        assert class_count(factory()) == 5, model
    assert head(MODELS["vit"][0]())[0] == "head" and head(nn.Sequential(nn.Conv2d(3, 4, 1))) is None
    assert class_count(nn.Sequential(nn.Conv2d(3, 4, 1))) == 4
    with pytest.raises(ValueError, match="no linear or convolution"):
        class_count(nn.ReLU())


def test_inputs_are_explained() -> None:
    assert explain_input(MODELS["batch_norm"][0]()).startswith("[N, 3, H, W] torch.float32")
    assert explain_input(nn.Conv1d(2, 3, 1)).startswith("[N, 2, W]")
    assert explain_input(nn.Conv3d(2, 3, 1)).startswith("[N, 2, D, H, W]")
    assert explain_input(MODELS["mlp"][0]()).startswith("[N, ..., 6]")
    assert takes_indices(MODELS["text"][0]()) and not takes_indices(MODELS["mlp"][0]())


def test_storages_count_once() -> None:
    x = torch.zeros(10)
    assert tensor_bytes([x, x[:5], x.view(2, 5)]) == 40 and tensor_bytes([x, torch.zeros(2)]) == 48
