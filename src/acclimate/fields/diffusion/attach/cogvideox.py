"""CogVideoX: text and video in one sequence with the same projections; only the video has positions to rotate by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acclimate.fields.diffusion.attach.plan import Plan
from acclimate.fields.diffusion.attach.processor import Exchanged, heads, normalised, projected_out, rotated, unmasked

__all__ = ["COGVIDEOX", "TextVideoAttention"]


class TextVideoAttention(Exchanged):
    """Text tokens, then video tokens."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Video `[B, n, C]` and text `[B, m, C]` after attention.

        Raises:
            ValueError: a mask.
        """
        unmasked(attention_mask)
        lengths = (encoder_hidden_states.shape[1], hidden_states.shape[1])
        states = torch.cat([encoder_hidden_states, hidden_states], 1)
        query = normalised(attn.norm_q, heads(attn.to_q(states), attn))
        key = normalised(attn.norm_k, heads(attn.to_k(states), attn))
        value = heads(attn.to_v(states), attn)
        query, key = (_rotated(each, lengths, image_rotary_emb) for each in (query, key))
        found = self.route.attend(query, key, value, layer=self.layer, lengths=lengths)
        text, video = projected_out(attn, found.flatten(2)).split(list(lengths), 1)
        return video, text


def _rotated(states: Tensor, lengths: tuple[int, int], rotary: tuple[Tensor, Tensor] | None) -> Tensor:
    if rotary is None:
        return states
    text, video = states.split(list(lengths), 1)
    return torch.cat([text, rotated(video, rotary)], 1)


COGVIDEOX = Plan(
    transformer="CogVideoXTransformer3DModel",
    processor=TextVideoAttention,
    replaces=("CogVideoXAttnProcessor2_0",),
    attentions=("attn1",),
    joint=True,
)
