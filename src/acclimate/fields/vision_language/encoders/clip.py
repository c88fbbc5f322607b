"""CLIP, SigLIP and SigLIP 2 by `transformers`: one encoder for images and one for texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.fields.vision_language.encoders.images import ImageEncoder
from acclimate.fields.vision_language.encoders.preprocessing import CLIP, SIGLIP, Preprocessing
from acclimate.fields.vision_language.encoders.tokens import Tokens
from acclimate.fields.vision_language.encoders.towers import ImageTower, PatchTower, TextTower
from acclimate.models.hub import Checkpoint

__all__ = ["PAIRS", "Clip", "TextEncoder", "image_encoder", "load_clip"]

PAIRS = ("clip", "siglip", "siglip2")
"""Kinds of models with an image and a text side that are known here."""


class TextEncoder(nn.Module):
    """Texts to features `[n, D]`, float32, not normalised: `tokens`, then `tower`."""

    def __init__(self, tower: TextTower, tokens: Tokens) -> None:
        super().__init__()
        self.tower = tower
        self.tokens = tokens

    def forward(self, texts: Sequence[str]) -> Tensor:
        device = self.tower.embedding().weight.device
        return self.tower(**{name: each.to(device) for name, each in self.tokens(texts).items()}).float()


class Clip(nn.Module):
    """An image encoder and a text encoder whose features are comparable. Called with images, it encodes them.

    `image_encoder` goes into `vision_language.adapt`, `encode_text` into `text_matrix`.

    Arguments: `image_encoder`; `text_encoder`, from a list of n texts to features `[n, D]`; `logit_scale`, what
    cosines are multiplied with, the exponential of the checkpoint's. SigLIP has a bias besides, which is the same for
    all classes, does not change which one is answered, and is left out.
    """

    def __init__(self, image_encoder: ImageEncoder, text_encoder: nn.Module, logit_scale: float) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.logit_scale = logit_scale

    @property
    def image_size(self) -> int:
        """Pixels of a side of what the image encoder looks at."""
        return self.image_encoder.image_size

    def preprocess(self, picture: Any) -> Tensor:
        """A `PIL.Image` of any size as `[3, image_size, image_size]` in [0, 1]. ValueError for anything else."""
        return self.image_encoder.preprocess(picture)

    def forward(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Features `[n, D]`, float32, not normalised, of a list of n texts, all in one forward.

        Texts beyond the model's length are cut before their end mark; the first is logged, all are counted in
        `text_encoder.tokens.truncated`. ValueError for a string in place of a list.
        """
        return self.text_encoder(texts)


def load_clip(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Clip:
    """CLIP, SigLIP or SigLIP 2, from the hub or a local folder, by the same path.

    Arguments:
        name_or_folder: such as `openai/clip-vit-base-patch16` or `google/siglip2-base-patch16-224`, or a folder that
            `save_pretrained` of model, tokenizer and image processor wrote.
        revision: branch, tag or commit on the hub.
        local_files_only: take what is cached, ask no server.
        dtype: of weights and forwards, float32 unless given; features are float32 in any case.
        device: where the weights go, the CPU unless given.

    Colours are normalised by the checkpoint's preprocessor file, or as is usual for its family if it has none. SigLIP
    2 of variable shape (NaFlex) gets squares.

    Raises ValueError for what is not there, lacks weights or is another model; ImportError without `transformers`, or
    without the sentencepiece and protobuf that the tokenizer of the first SigLIP needs.

    Example: `clip = load_clip("openai/clip-vit-base-patch16")`.
    """
    place = Checkpoint.at(name_or_folder, revision, local_files_only)
    model = place.model(dtype or torch.float32)
    kind = model.config.model_type
    if kind not in PAIRS:
        raise ValueError(
            f"found {type(model).__name__} at {place.name}, expected CLIP, SigLIP or SigLIP 2. Load an encoder of "
            "images alone with load_auxiliary; pass any other pair of encoders as callables."
        )
    texts = model.config.text_config
    tokens = Tokens(place.tokenizer(texts.vocab_size), texts.max_position_embeddings, whole=kind != "clip")
    tower = TextTower(model.text_model, getattr(model, "text_projection", None))
    scale = float(model.logit_scale.detach().float().exp())
    return Clip(image_encoder(model, place.image_settings()), TextEncoder(tower, tokens), scale).eval().to(device)


def image_encoder(model: Any, settings: dict[str, Any]) -> ImageEncoder:
    """The image side of CLIP, SigLIP or SigLIP 2, at the size that its positions are for."""
    config, colours = model.config.vision_config, CLIP if model.config.model_type == "clip" else SIGLIP
    if model.config.model_type == "siglip2":
        tower = PatchTower(model.vision_model, config.patch_size)
        size = config.patch_size * round(config.num_patches**0.5)
        settings = {**settings, "size": size, "do_center_crop": True, "crop_size": size}
    else:
        tower, size = ImageTower(model.vision_model, getattr(model, "visual_projection", None)), config.image_size
    preprocessing = Preprocessing.read(settings, size, colours)
    if preprocessing.framing.size != size:
        raise ValueError(
            f"the preprocessor makes images of {preprocessing.framing.size} pixels and the model takes {size}. Save "
            "both of the same checkpoint."
        )
    return ImageEncoder(tower, preprocessing)
