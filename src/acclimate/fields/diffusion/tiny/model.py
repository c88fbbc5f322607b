"""Small class-conditional diffusion transformers of the diffusers library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from acclimate.models.initial import private_init
from acclimate.models.weights import filled
from acclimate.streams.shared import require

if TYPE_CHECKING:
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

__all__ = ["NOTHING", "cifar10_dit", "digits_dit", "tiny_dit"]

NOTHING = 10
"""The label that stands for no class, for guidance without a classifier."""


def tiny_dit(
    weights: str | Path | None = None,
    *,
    side: int,
    patch: int,
    channels: int,
    width: int,
    heads: int,
    layers: int,
    seed: int = 0,
) -> DiTTransformer2DModel:
    """A `DiTTransformer2DModel` of ten classes that predicts the velocity of a rectified flow.

    Blocks begin as the identity and the output as nought: what modulates them starts at zero. Labels are from 0 to 9,
    and 10 is none of them; the model itself drops no label, whether it is in training or not.

    Arguments:
        weights: a safetensors file; without one the weights are random.
        side: of the square images, pixels.
        patch: of a token, pixels; a divisor of `side`.
        channels: of images, in [-1, 1].
        width: of a token's features; a multiple of `heads`.
        heads: of attention.
        layers: transformer blocks.
        seed: of the random weights.

    Raises ImportError without diffusers, and ValueError for sizes that do not divide.

    Source: Peebles, Xie: Scalable Diffusion Models with Transformers, ICCV 2023 (arXiv 2212.09748).
    """
    if side % patch or width % heads:
        raise ValueError(
            f"found images of {side} pixels with patches of {patch}, and {width} features with {heads} heads; expected "
            "sides that patches fill, and features that heads share."
        )
    diffusers: Any = require("diffusers", "A diffusion transformer", "diffusion")
    with private_init(seed):
        model = diffusers.DiTTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            in_channels=channels,
            num_layers=layers,
            sample_size=side,
            patch_size=patch,
            num_embeds_ada_norm=NOTHING,
        )
    for block in model.transformer_blocks:
        # It would drop labels by the global generator; the loss drops them by a private one.
        block.norm1.emb.class_embedder.dropout_prob = 0.0
        _zero(block.norm1.linear)
    _zero(model.proj_out_1)
    _zero(model.proj_out_2)
    return filled(model, weights)


def _zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def digits_dit(weights: str | Path | None = None, *, seed: int = 0) -> DiTTransformer2DModel:
    """Grey digits of 16 x 16 pixels: 64 tokens of 64 features, four heads, four layers."""
    return tiny_dit(weights, side=16, patch=2, channels=1, width=64, heads=4, layers=4, seed=seed)


def cifar10_dit(weights: str | Path | None = None, *, seed: int = 0) -> DiTTransformer2DModel:
    """CIFAR-10 at 32 x 32 pixels: 64 tokens of 128 features, four heads, six layers."""
    return tiny_dit(weights, side=32, patch=4, channels=3, width=128, heads=4, layers=6, seed=seed)
