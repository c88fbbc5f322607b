"""Transformers whose sequence is the patches of an image alone: DiT and PixArt."""

from __future__ import annotations

from acclimate.fields.diffusion.attach.plan import Plan
from acclimate.fields.diffusion.attach.processor import SelfAttention

__all__ = ["DIT", "PIXART"]

DIT = Plan(
    transformer="DiTTransformer2DModel",
    processor=SelfAttention,
    replaces=("AttnProcessor2_0", "AttnProcessor"),
    attentions=("attn1",),
    output="proj_out_2",
)

PIXART = Plan(
    transformer="PixArtTransformer2DModel",
    processor=SelfAttention,
    replaces=("AttnProcessor2_0", "AttnProcessor"),
    attentions=("attn1",),
)
