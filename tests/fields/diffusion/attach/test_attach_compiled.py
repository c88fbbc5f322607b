"""A compiled transformer goes through the exchange as it does uncompiled."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor, nn

from acclimate.fields.diffusion.attach.compact import compact
from acclimate.fields.diffusion.attach.compacted import Compacted
from acclimate.models.initial import private_init


def transformer() -> DiTTransformer2DModel:
    with private_init(0):
        return DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=1, num_layers=2, sample_size=8,
            patch_size=2, num_embeds_ada_norm=11, norm_type="ada_norm_zero",
        ).eval()  # fmt: skip


def image(model: nn.Module, compacted: Compacted) -> list[Tensor]:
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), compacted.image():
        return [
            model(noise, timestep=torch.tensor([t]), class_labels=torch.tensor([3]), return_dict=False)[0]
            for t in (900.0, 600.0, 300.0)
        ]


@pytest.mark.parametrize("first", [True, False])
def test_compiling_changes_nothing(first: bool) -> None:
    plain = transformer()
    expected = image(plain, compact(plain, devices=2))
    model = transformer()
    if first:
        model.compile(backend="eager")
    compacted = compact(model, devices=2)
    called = model if first else torch.compile(model, backend="eager")
    for one, other in zip(image(called, compacted), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert compacted.stats().ratio > 2
