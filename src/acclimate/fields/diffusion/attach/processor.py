"""The attention processor that sends self-attention through an exchange, and the steps that families share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from acclimate.fields.diffusion.attach.route import Route
from acclimate.streams.shared import require

__all__ = ["Exchanged", "SelfAttention", "heads", "normalised", "projected_out", "rotated", "unmasked"]


class Exchanged:
    """A processor whose keys and values travel; a family of transformers is a subclass.

    Queries and keys are normalised and rotated before the exchange, so that what is received needs no positions.

    Arguments:
        route: to the exchange.
        layer: number of the attention.
    """

    def __init__(self, route: Route, layer: int) -> None:
        self.route = route
        self.layer = layer


class SelfAttention(Exchanged):
    """Attention among image tokens alone: DiT and PixArt, whose text comes in by cross-attention or not at all."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Image tokens `[B, n, C]` after attention.

        Raises:
            ValueError: a mask, or text in place of image tokens.
        """
        unmasked(attention_mask)
        if encoder_hidden_states is not None:
            raise ValueError("Self-attention was given text to attend to; expected none. Only self-attention travels.")
        query = normalised(attn.norm_q, heads(attn.to_q(hidden_states), attn))
        key = normalised(attn.norm_k, heads(attn.to_k(hidden_states), attn))
        value = heads(attn.to_v(hidden_states), attn)
        found = self.route.attend(query, key, value, layer=self.layer, lengths=(hidden_states.shape[1],))
        return projected_out(attn, found.flatten(2))


def unmasked(attention_mask: Tensor | None) -> None:
    """ValueError for a mask of self-attention: the exchange knows none."""
    if attention_mask is not None:
        raise ValueError(
            f"Self-attention was given a mask of shape {list(attention_mask.shape)}; expected none, since tokens of "
            "all devices attend to each other. Call the transformer without attention_mask."
        )


def heads(states: Tensor, attn: Any) -> Tensor:
    """Channels cut into the heads of an attention module: `[B, n, H D]` as `[B, n, H, D]`."""
    return states.unflatten(-1, (attn.heads, -1))


def normalised(norm: Any, states: Tensor) -> Tensor:
    """`[..., D]` through a module's normalisation of queries or keys, where it has one."""
    return states if norm is None else norm(states)


def rotated(states: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """`[B, n, H, D]` rotated by the positions of its tokens, given as cosines and sines `[n, D]`."""
    rotate = require("diffusers.models.embeddings", "Rotating queries and keys", "diffusion").apply_rotary_emb
    return rotate(states, rotary, sequence_dim=1)


def projected_out(attn: Any, states: Tensor) -> Tensor:
    """`[B, n, C]` through the output layer of an attention module, dropout included."""
    return attn.to_out[1](attn.to_out[0](states))
