"""Stable Diffusion 3 and 3.5: joint attention of image and text, and attention of the image alone beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acclimate.fields.diffusion.attach.plan import Plan
from acclimate.fields.diffusion.attach.processor import Exchanged, heads, normalised, projected_out, unmasked

__all__ = ["SD3", "ImageTextAttention"]


class ImageTextAttention(Exchanged):
    """Image tokens, then text tokens where there are any, each with projections of their own."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Image `[B, n, C]` after attention; with text `[B, m, C]`, both.

        Raises:
            ValueError: a mask.
        """
        unmasked(attention_mask)
        image = hidden_states.shape[1]
        query = normalised(attn.norm_q, heads(attn.to_q(hidden_states), attn))
        key = normalised(attn.norm_k, heads(attn.to_k(hidden_states), attn))
        value = heads(attn.to_v(hidden_states), attn)
        if encoder_hidden_states is None:
            found = self.route.attend(query, key, value, layer=self.layer, lengths=(image,))
            return projected_out(attn, found.flatten(2))
        text = encoder_hidden_states
        query = torch.cat([query, normalised(attn.norm_added_q, heads(attn.add_q_proj(text), attn))], 1)
        key = torch.cat([key, normalised(attn.norm_added_k, heads(attn.add_k_proj(text), attn))], 1)
        value = torch.cat([value, heads(attn.add_v_proj(text), attn)], 1)
        found = self.route.attend(query, key, value, layer=self.layer, lengths=(image, text.shape[1]))
        of_image, of_text = found.flatten(2).split([image, text.shape[1]], 1)
        return projected_out(attn, of_image), of_text if attn.context_pre_only else attn.to_add_out(of_text)


SD3 = Plan(
    transformer="SD3Transformer2DModel",
    processor=ImageTextAttention,
    replaces=("JointAttnProcessor2_0",),
    attentions=("attn", "attn2"),
    joint=True,
    whole=("block_controlnet_hidden_states",),
)
