"""SAM as Meta publishes it: one file of tensors, under other names than in `transformers`, and no configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from acclimate.fields.cells.sam.sizes import Size
from acclimate.models.published import fitted_names, read_checkpoint

__all__ = ["read_meta"]

_RENAMED = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.neck\.0\.", ".neck.conv1."),
    (r"\.neck\.1\.", ".neck.layer_norm1."),
    (r"\.neck\.2\.", ".neck.conv2."),
    (r"\.neck\.3\.", ".neck.layer_norm2."),
    (r"\.norm(?=\d|_)", ".layer_norm"),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
)
"""From the names in Meta's files to those in `transformers`, in this order; those of heads for masks and their quality,
which are not read, are left alone."""

_TIED = "prompt_encoder.shared_embedding.positional_embedding", "shared_image_embedding.positional_embedding"
_HEADS = 8
"""Of the mask decoder, which the shapes do not tell; Meta has no other number."""


def read_meta(path: Path) -> tuple[dict[str, Tensor], Size]:
    """The tensors by the names of `transformers`, and the size that their shapes tell.

    FileNotFoundError and ValueError as of `read_checkpoint`, and ValueError for a file without SAM.
    """
    found = fitted_names(read_checkpoint(path), ["image_encoder.pos_embed"])
    tensors = {_renamed(name): value for name, value in found.items()}
    try:
        tensors[_TIED[1]] = tensors[_TIED[0]]
        return tensors, _size(tensors)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"{path} holds {len(found)} tensors, such as {next(iter(found), 'none')}, but no SAM. Expected a file as "
            "Meta publishes it, such as sam_vit_b_01ec64.pth; pass a folder that save_pretrained wrote by its path."
        ) from error


def _renamed(name: str) -> str:
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _size(tensors: Mapping[str, Tensor]) -> Size:
    grid, width = tensors["vision_encoder.pos_embed"].shape[2:]
    patch = tensors["vision_encoder.patch_embed.projection.weight"].shape[-1]
    depth = sum(name.endswith(".attn.rel_pos_h") for name in tensors)
    tables = [tensors[f"vision_encoder.layers.{layer}.attn.rel_pos_h"] for layer in range(depth)]
    windows = [(len(table) + 1) // 2 for table in tables]
    return Size(
        name=f"SAM {width}x{depth}",
        image=grid * patch,
        patch=patch,
        width=width,
        depth=depth,
        heads=width // tables[0].shape[1],
        mlp=len(tensors["vision_encoder.layers.0.mlp.lin1.weight"]) / width,
        window=min(windows),
        everywhere=tuple(layer for layer, window in enumerate(windows) if window == grid),
        decoder=len(tensors["vision_encoder.neck.conv1.weight"]),
        decoder_mlp=len(tensors["mask_decoder.transformer.layers.0.mlp.lin1.weight"]),
        decoder_heads=_HEADS,
    )
