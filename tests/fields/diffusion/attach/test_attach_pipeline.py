"""Pipelines and files of diffusers know nothing of the exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import diffusers
import numpy as np
import torch
from tiny_transformers import built, trajectory

from acclimate.fields.diffusion.attach.compact import compact
from acclimate.models.initial import private_init


@pytest.mark.parametrize("name", ["dit", "flux"])
def test_a_saved_transformer_is_compacted_like_the_one_it_came_from(name: str, tmp_path: Path) -> None:
    model, call = built(name)
    with compact(model, devices=2, codec="two_bit"):
        found = trajectory(call, model, 3)
        model.save_pretrained(tmp_path)  # pyright: ignore[reportCallIssue]
    again = type(model).from_pretrained(tmp_path).eval()  # pyright: ignore[reportAttributeAccessIssue]
    with compact(again, devices=2, codec="two_bit"):
        same = trajectory(call, again, 3)
    assert all(torch.equal(one, other) for one, other in zip(found, same, strict=True))


def pipeline() -> Any:
    with private_init(1):
        vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4).eval()
        model = diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            norm_num_groups=4,
        ).eval()
    made = diffusers.DiTPipeline(transformer=model, vae=vae, scheduler=diffusers.DDIMScheduler())
    made.set_progress_bar_config(disable=True)
    return made


def test_a_pipeline_with_guidance_draws_the_same_image() -> None:
    made = pipeline()

    def drawn_image() -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        return made([3], generator=generator, num_inference_steps=4, output_type="np").images

    plain = drawn_image()
    with compact(made.transformer, devices=4, codec="whole") as compacted, compacted.image():
        assert np.abs(drawn_image() - plain).max() < 1e-5
        assert compacted.stats().evaluations == 4
    with compact(made.transformer, devices=4, codec="two_bit"):
        close = drawn_image()
    assert 0 < np.abs(close - plain).mean() < 0.1 * plain.std()
    assert np.array_equal(drawn_image(), plain)
