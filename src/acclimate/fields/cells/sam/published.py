"""The size of a SAM that `transformers` has read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acclimate.fields.cells.sam.sizes import Size

__all__ = ["size_of"]

_LIKE: Mapping[str, tuple[str, ...]] = {
    "vision_config": (
        "attention_dropout",
        "hidden_act",
        "layer_norm_eps",
        "num_channels",
        "num_pos_feats",
        "qkv_bias",
        "use_abs_pos",
        "use_rel_pos",
    ),
    "prompt_encoder_config": (
        "hidden_act",
        "hidden_size",
        "image_size",
        "layer_norm_eps",
        "mask_input_channels",
        "num_point_embeddings",
        "patch_size",
    ),
    "mask_decoder_config": (
        "attention_downsample_rate",
        "hidden_act",
        "hidden_size",
        "layer_norm_eps",
        "num_hidden_layers",
    ),
}
"""What is the same in all published sizes, or follows from the rest."""


def size_of(model: Any, name: str) -> Size:
    """Of a model, which came from `name`. ValueError for one that is no SAM or unlike all that Meta published."""
    config = model.config
    if config.model_type != "sam":
        raise ValueError(f"found {type(model).__name__} at {name}, expected SAM, such as facebook/sam-vit-base.")
    vision, decoder = config.vision_config, config.mask_decoder_config
    size = Size(
        name=f"SAM {vision.hidden_size}x{vision.num_hidden_layers}",
        image=vision.image_size,
        patch=vision.patch_size,
        width=vision.hidden_size,
        depth=vision.num_hidden_layers,
        heads=vision.num_attention_heads,
        mlp=vision.mlp_dim / vision.hidden_size,
        window=vision.window_size,
        everywhere=tuple(vision.global_attn_indexes),
        decoder=vision.output_channels,
        decoder_mlp=decoder.mlp_dim,
        decoder_heads=decoder.num_attention_heads,
    )
    built = size.config(2)
    for part, names in _LIKE.items():
        for each in names:
            found, expected = (getattr(getattr(where, part), each) for where in (config, built))
            if found != expected:
                raise ValueError(
                    f"{name} has {each} = {found!r} in its {part}, expected {expected!r} as in all SAM of Meta. Load "
                    "another checkpoint."
                )
    return size
