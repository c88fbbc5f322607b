"""Flux: blocks with streams of text and image, then blocks in which both are one stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acclimate.fields.diffusion.attach.plan import Plan
from acclimate.fields.diffusion.attach.processor import Exchanged, heads, normalised, projected_out, rotated, unmasked

__all__ = ["FLUX", "TextImageAttention"]


class TextImageAttention(Exchanged):
    """Text tokens, then image tokens, both rotated by their positions."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """In a block with two streams image `[B, n, C]` and text `[B, m, C]`; else one `[B, m + n, C]`, not projected.

        Raises:
            ValueError: a mask.
        """
        unmasked(attention_mask)
        query = normalised(attn.norm_q, heads(attn.to_q(hidden_states), attn))
        key = normalised(attn.norm_k, heads(attn.to_k(hidden_states), attn))
        value = heads(attn.to_v(hidden_states), attn)
        text = encoder_hidden_states
        if text is not None:
            query = torch.cat([normalised(attn.norm_added_q, heads(attn.add_q_proj(text), attn)), query], 1)
            key = torch.cat([normalised(attn.norm_added_k, heads(attn.add_k_proj(text), attn)), key], 1)
            value = torch.cat([heads(attn.add_v_proj(text), attn), value], 1)
        if image_rotary_emb is not None:
            query, key = rotated(query, image_rotary_emb), rotated(key, image_rotary_emb)
        found = self.route.attend(query, key, value, layer=self.layer, lengths=self.route.lengths).flatten(2)
        if text is None:
            return found
        of_text, of_image = found.split([text.shape[1], hidden_states.shape[1]], 1)
        return projected_out(attn, of_image), attn.to_add_out(of_text)


FLUX = Plan(
    transformer="FluxTransformer2DModel",
    processor=TextImageAttention,
    replaces=("FluxAttnProcessor",),
    blocks=("transformer_blocks", "single_transformer_blocks"),
    attentions=("attn",),
    joint=True,
    rotary="joint",
    whole=("controlnet_block_samples", "controlnet_single_block_samples"),
)
