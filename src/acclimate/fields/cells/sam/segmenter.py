"""SAM that is asked nothing: a mask for each part of a cell, and the feature map before the neck."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from acclimate.fields.cells.sam.colours import Colours
from acclimate.fields.cells.sam.low_rank import add_adapters
from acclimate.fields.cells.sam.sizes import Size
from acclimate.models.initial import private_init
from acclimate.streams.shared import require

__all__ = ["Seen", "Segmenter"]


class Seen(NamedTuple):
    """What the segmenter gives: `logits` `[N, P, S/4, S/4]` where a patch is 16 pixels (twice as fine where it is 8),
    one map for each part, background first; and `features` `[N, D, g, g]`, the last layer before the neck."""

    logits: Tensor
    features: Tensor


class Segmenter(nn.Module):
    """Images `[N, 3, S, S]` in [0, 1] to what `Seen` says; with `colours`, these are taken for the images' own.

    SAM's image encoder with low-rank adapters, its prompt encoder called with nothing, and its mask decoder with one
    token for each part (and one more that is not used). Which parameters learn: the adapters, the prompt encoder and
    the decoder; without adapters (`rank=0`) all. The random frequencies of positions stay as they were drawn.

    Arguments:
        size: see `SIZES`.
        parts: masks, 2 for background and cell as published, 3 for background, cytoplasm and nucleus.
        rank: of the adapters, 4 as published; 0 for none.
        seed: of the initial weights.

    Source: BC-SAM (arXiv 2408.06716); SAM by Kirillov et al., ICCV 2023 (arXiv 2304.02643), as `transformers` has it.
    Raises ImportError without transformers. Cost: an encoder of a token for each patch; 4 r D numbers a layer are
    learned in it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: Size, *, parts: int = 2, rank: int = 4, seed: int = 0) -> None:
        super().__init__()
        transformers: Any = require("transformers", "Building SAM", "cells")
        self.size, self.parts, self.rank = size, parts, rank
        with private_init(seed):
            self.sam: nn.Module = transformers.SamModel(size.config(parts))
            for table in (self.encoder.pos_embed, *_relative_tables(self.encoder)):
                nn.init.trunc_normal_(table, std=0.02)
            if rank:
                add_adapters(self.encoder, rank)
        self.sam.shared_image_embedding.requires_grad_(False)
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((3, 1, 1), 0.25))

    @property
    def colours(self) -> Colours:
        """Those of the images that it was trained with."""
        return Colours(self.mean, self.std)

    @property
    def encoder(self) -> Any:
        """SAM's image encoder."""
        return self.sam.vision_encoder

    def adapt(self, rank: int, *, seed: int = 0) -> None:
        """Freeze the encoder and put adapters of this rank, drawn by `seed`, into it. ValueError where it has some."""
        with private_init(seed):
            add_adapters(self.encoder, rank)
        self.rank = rank

    def features(self, images: Tensor, colours: Colours | None = None) -> Tensor:
        """The last layer before the neck, `[N, D, g, g]`; the decoder is not asked."""
        return self._tokens(images, colours).permute(0, 3, 1, 2)

    def forward(self, images: Tensor, colours: Colours | None = None) -> Seen:
        tokens = self._tokens(images, colours)
        sam: Any = self.sam
        count = len(images)
        _, dense = sam.prompt_encoder(None, None, None, None)
        places = sam.get_image_wide_positional_embeddings().expand(count, -1, -1, -1)
        logits, _ = sam.mask_decoder(
            image_embeddings=self.encoder.neck(tokens),
            image_positional_embeddings=places,
            sparse_prompt_embeddings=None,
            dense_prompt_embeddings=dense.expand(count, -1, -1, -1),
            multimask_output=True,
        )
        return Seen(logits[:, 0], tokens.permute(0, 3, 1, 2))

    def _tokens(self, images: Tensor, colours: Colours | None) -> Tensor:
        side = self.size.image
        if images.ndim != 4 or images.shape[1:] != (3, side, side):
            raise ValueError(
                f"found images {list(images.shape)}, expected [N, 3, {side}, {side}]: read them with size={side}."
            )
        encoder = self.encoder
        tokens = encoder.patch_embed((colours or self.colours).standard(images)) + encoder.pos_embed
        for layer in encoder.layers:
            tokens = layer(tokens)
        return tokens


def _relative_tables(encoder: Any) -> list[nn.Parameter]:
    return [table for layer in encoder.layers for table in (layer.attn.rel_pos_h, layer.attn.rel_pos_w)]
