"""How large a SAM is: the published one, one for a CPU, one for tests."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from acclimate.streams.shared import require

__all__ = ["PAPER", "SIZES", "SMALL", "UNIT", "Size"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Of the image encoder and the mask decoder.

    Arguments:
        name: what files call it.
        image, patch: pixels of a side; tokens come in a grid of `image / patch` a side.
        width, depth, heads, mlp: of the encoder; `mlp` in widths.
        window: tokens of a side within which attention stays, but in the layers `everywhere`.
        decoder, decoder_mlp, decoder_heads: of the mask decoder; `decoder` is the neck's width, a multiple of 8.
    """

    name: str
    image: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp: float
    window: int
    everywhere: tuple[int, ...]
    decoder: int
    decoder_mlp: int
    decoder_heads: int

    def at(self, image: int) -> Size:
        """The same for images of another size; one of `SIZES` where it is like it. ValueError for no whole patches."""
        if image < self.patch or image % self.patch:
            raise ValueError(f"image_size is {image}, expected a multiple of the {self.patch} pixels of a patch.")
        size = replace(self, image=image)
        return next((known for known in SIZES.values() if replace(known, name=size.name) == size), size)

    def told(self) -> str | dict[str, Any]:
        """For files: the name of one of `SIZES`, all numbers of another."""
        return self.name if SIZES.get(self.name) == self else asdict(self)

    @classmethod
    def of(cls, told: Any) -> Size:
        """What `told` gave. KeyError or TypeError for anything else.

        >>> Size.of("unit") == UNIT
        True
        """
        if isinstance(told, str):
            return SIZES[told]
        numbers: dict[str, Any] = {**told, "everywhere": tuple(told["everywhere"])}
        return cls(**numbers)

    @property
    def grid(self) -> int:
        """Tokens of a side.

        >>> PAPER.grid
        14
        """
        return self.image // self.patch

    def config(self, parts: int) -> Any:
        """The `SamConfig` of a decoder with a mask for each of `parts`, background among them."""
        transformers: Any = require("transformers", "Building SAM", "cells")
        return transformers.SamConfig(
            vision_config={
                "hidden_size": self.width,
                "output_channels": self.decoder,
                "num_hidden_layers": self.depth,
                "num_attention_heads": self.heads,
                "image_size": self.image,
                "patch_size": self.patch,
                "mlp_ratio": self.mlp,
                "mlp_dim": round(self.mlp * self.width),
                "window_size": self.window,
                "global_attn_indexes": list(self.everywhere),
                "num_pos_feats": self.decoder // 2,
                "initializer_range": 0.02,  # the library's own, 1e-10, is for weights that will be loaded
            },
            prompt_encoder_config={
                "hidden_size": self.decoder,
                "image_size": self.image,
                "patch_size": self.patch,
                "mask_input_channels": 16,
            },
            mask_decoder_config={
                "hidden_size": self.decoder,
                "mlp_dim": self.decoder_mlp,
                "num_attention_heads": self.decoder_heads,
                "num_multimask_outputs": parts,
                "iou_head_hidden_dim": self.decoder,
            },
        )


UNIT = Size(
    name="unit",
    image=64,
    patch=8,
    width=48,
    depth=4,
    heads=4,
    mlp=2.0,
    window=4,
    everywhere=(1, 3),
    decoder=32,
    decoder_mlp=64,
    decoder_heads=4,
)
SMALL = Size(
    name="small",
    image=128,
    patch=8,
    width=96,
    depth=6,
    heads=4,
    mlp=3.0,
    window=8,
    everywhere=(2, 5),
    decoder=64,
    decoder_mlp=128,
    decoder_heads=4,
)
PAPER = Size(
    name="paper",
    image=224,
    patch=16,
    width=768,
    depth=12,
    heads=12,
    mlp=4.0,
    window=14,
    everywhere=(2, 5, 8, 11),
    decoder=256,
    decoder_mlp=2048,
    decoder_heads=8,
)
SIZES = {size.name: size for size in (UNIT, SMALL, PAPER)}
"""By name."""
