"""A second encoder of images, such as DINOv2, by `transformers`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from acclimate.core.config import one_of
from acclimate.fields.vision_language.encoders.clip import PAIRS, image_encoder
from acclimate.fields.vision_language.encoders.images import ImageEncoder
from acclimate.fields.vision_language.encoders.preprocessing import CLIP, IMAGENET, Preprocessing
from acclimate.fields.vision_language.encoders.towers import ImageTower
from acclimate.models.hub import Checkpoint

__all__ = ["load_auxiliary"]


def load_auxiliary(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    image_size: int | None = None,
    colours: str = "checkpoint",
) -> ImageEncoder:
    """An image encoder of `transformers`: DINOv2, with or without registers, or another with a pooled output.

    The feature of DINOv2 is its class token behind the last layer norm.

    Arguments: the first ones as of `load_clip`;
        name_or_folder: such as `facebook/dinov2-with-registers-small`, or a folder; of CLIP and SigLIP the image side.
        image_size: pixels of a side; that of the preprocessor file unless given (224 for DINOv2, whose positions
            are interpolated). Multiples of the patch size.
        colours: "checkpoint" for the preprocessor file's mean and deviation, those of ImageNet if it has none; or
            "imagenet"; or "clip", with which the released COSMIC calls DINOv2.

    Raises ValueError for what is not there, lacks weights, has no pooled output or does not take the size; ImportError
    without `transformers`. Cost: the weights, and one forward of one image, by which all this is found out.

    Example: `dino = load_auxiliary("facebook/dinov2-with-registers-small")`.
    """
    one_of("checkpoint", "imagenet", "clip", colours=colours)
    place = Checkpoint.at(name_or_folder, revision, local_files_only)
    model, settings = place.model(dtype or torch.float32), place.image_settings()
    if colours != "checkpoint":
        chosen = IMAGENET if colours == "imagenet" else CLIP
        settings = {**settings, "image_mean": chosen.mean, "image_std": chosen.std}
    encoder = image_encoder(model, settings) if model.config.model_type in PAIRS else _alone(model, settings)
    if image_size is not None:
        patch = getattr(getattr(model.config, "vision_config", model.config), "patch_size", 1)
        if isinstance(patch, int) and image_size % patch:
            raise ValueError(f"image_size is {image_size}, expected a multiple of {patch}, a patch's side in pixels.")
        framing = encoder.preprocessing.framing.of_size(image_size)
        encoder = ImageEncoder(encoder.tower, replace(encoder.preprocessing, framing=framing))
    return _tried(encoder.eval().to(device), place.name)


def _alone(model: Any, settings: Mapping[str, Any]) -> ImageEncoder:
    size = getattr(model.config, "image_size", 224)
    own = size if isinstance(size, int) else int(size[0])
    return ImageEncoder(ImageTower(model), Preprocessing.read(settings, own, IMAGENET))


@torch.no_grad()
def _tried(encoder: ImageEncoder, name: str) -> ImageEncoder:
    """What does not fit shows at once and not in a stream."""
    size = encoder.image_size
    try:
        found = encoder(torch.zeros(1, 3, size, size, device=encoder.mean.device))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"{name} does not encode images of {size} pixels: {error}") from error
    if found.ndim != 2:
        raise ValueError(f"{name} makes {list(found.shape)} of an image, expected one feature [1, D].")
    return encoder
