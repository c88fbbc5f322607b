"""One tiny transformer with random weights of each family, and calls of it as a pipeline makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from acclimate.models.initial import private_init

Call = Callable[[nn.Module, Tensor, float], Tensor]
"""The transformer's answer to a latent at a timestep."""

BATCH, TEXT = 2, 8


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dit() -> nn.Module:
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=10,
        norm_num_groups=4,
    )


def call_dit(model: nn.Module, latent: Tensor, timestep: float) -> Tensor:
    time = torch.full((len(latent),), int(timestep))
    return model(latent, timestep=time, class_labels=torch.tensor([1, 7])[: len(latent)]).sample


def pixart() -> nn.Module:
    return diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        cross_attention_dim=16,
        caption_channels=12,
        use_additional_conditions=False,
        norm_num_groups=4,
    )


def call_pixart(model: nn.Module, latent: Tensor, timestep: float) -> Tensor:
    mask = torch.ones(len(latent), 7)
    mask[0, 4:] = 0
    given = {"resolution": None, "aspect_ratio": None}
    return model(
        latent,
        encoder_hidden_states=drawn(len(latent), 7, 12, seed=5).to(latent.dtype),
        encoder_attention_mask=mask,
        timestep=torch.full((len(latent),), timestep),
        added_cond_kwargs=given,
    ).sample


def sd3() -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=6,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )


def call_sd3(model: nn.Module, latent: Tensor, timestep: float) -> Tensor:
    return model(
        hidden_states=latent,
        encoder_hidden_states=drawn(len(latent), TEXT, 12, seed=5).to(latent.dtype),
        pooled_projections=drawn(len(latent), 6, seed=6).to(latent.dtype),
        timestep=torch.full((len(latent),), timestep),
        return_dict=False,
    )[0]


def flux() -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=6,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )


def call_flux(model: nn.Module, latent: Tensor, timestep: float) -> Tensor:
    tokens = latent.flatten(2).transpose(1, 2)[:, ::4]  # 16 tokens of 4 channels
    places = torch.stack([torch.zeros(16), torch.arange(16) // 4, torch.arange(16) % 4], 1)
    return model(
        hidden_states=tokens,
        encoder_hidden_states=drawn(len(latent), TEXT, 12, seed=5).to(latent.dtype),
        pooled_projections=drawn(len(latent), 6, seed=6).to(latent.dtype),
        timestep=torch.full((len(latent),), timestep / 1000),
        guidance=torch.full((len(latent),), 3.5, dtype=latent.dtype),
        txt_ids=torch.zeros(TEXT, 3),
        img_ids=places,
        joint_attention_kwargs={},
        return_dict=False,
    )[0]


def cogvideox(rotary: bool = True) -> nn.Module:
    return diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=6,
        text_embed_dim=12,
        num_layers=2,
        sample_width=4,
        sample_height=4,
        sample_frames=5,
        max_text_seq_length=TEXT,
        use_rotary_positional_embeddings=rotary,
    )


def call_cogvideox(model: nn.Module, latent: Tensor, timestep: float) -> Tensor:
    video = latent.unflatten(2, (2, 4)).transpose(1, 2)[..., :4]  # 2 frames of 4 channels, 4 x 4
    angles = torch.outer(torch.arange(8.0), 100.0 ** -torch.arange(8.0).div(8)).repeat_interleave(2, 1)
    rotates = model.config["use_rotary_positional_embeddings"]  # pyright: ignore[reportAttributeAccessIssue]
    return model(
        hidden_states=video,
        encoder_hidden_states=drawn(len(latent), TEXT, 12, seed=5).to(latent.dtype),
        timestep=torch.full((len(latent),), int(timestep)),
        image_rotary_emb=(angles.cos(), angles.sin()) if rotates else None,
        return_dict=False,
    )[0]


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Call]] = {
    "dit": (dit, call_dit),
    "pixart": (pixart, call_pixart),
    "sd3": (sd3, call_sd3),
    "flux": (flux, call_flux),
    "cogvideox": (cogvideox, call_cogvideox),
    "cogvideox-positions": (lambda: cogvideox(rotary=False), call_cogvideox),
}


def built(name: str) -> tuple[nn.Module, Call]:
    """A family's transformer with weights that depend on nothing but the seed, and how to call it."""
    build, call = FAMILIES[name]
    with private_init(3):
        return build().eval(), call


def trajectory(call: Call, model: Any, steps: int, seed: int = 0) -> list[Tensor]:
    """A latent that drifts slowly through falling timesteps, as in sampling, and what the model says on the way."""
    start, end = drawn(BATCH, 4, 8, 8, seed=seed), drawn(BATCH, 4, 8, 8, seed=seed + 100)
    found: list[Tensor] = []
    with torch.no_grad():
        for step in range(steps):
            share = step / steps
            found.append(call(model, (1 - share) * start + share * end, 900.0 - 100 * step))
    return found
