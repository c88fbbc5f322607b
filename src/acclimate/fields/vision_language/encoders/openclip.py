"""Models of open_clip, such as the published CLIP with a ResNet-50, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.fields.vision_language.encoders.clip import Clip
from acclimate.fields.vision_language.encoders.images import ImageEncoder
from acclimate.fields.vision_language.encoders.preprocessing import CLIP, Preprocessing
from acclimate.fields.vision_language.encoders.tokens import texts_only

__all__ = ["load_open_clip"]

_PLACES = ("hf-hub:", "local-dir:")
"""How names begin that say where the weights are."""

_FILTERS = {"bicubic": 3, "bilinear": 2}
"""Pillow's numbers."""


class _Texts(nn.Module):
    """Texts to features `[n, D]`, float32."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer

    def forward(self, texts: Sequence[str]) -> Tensor:
        texts_only(texts)
        device = next(self.model.parameters()).device
        return self.model.encode_text(self.tokenizer(list(texts)).to(device)).float()


def load_open_clip(
    name: str,
    pretrained: str | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Clip:
    """A pair of encoders of the package open_clip, which needs torchvision and comes with no extra of this library.

    Texts that are too long are cut by its tokenizer, which keeps the end mark and does not count them.

    Arguments:
        name: of an architecture, such as `RN50-quickgelu`; or `hf-hub:` or `local-dir:` and a place of weights.
        pretrained: tag of published weights, such as `openai`, or path of a file; None for a place.
        dtype: of weights and forwards, float32 unless given.
        device: where the weights go, the CPU unless given.

    Raises ImportError where open_clip is missing or does not import; ValueError for an unknown model, unknown weights,
    or none.

    Example: `clip = load_open_clip("RN50-quickgelu", "openai")`.
    """
    library = _library()
    if pretrained is None and not name.startswith(_PLACES):
        tags = ", ".join(library.list_pretrained_tags_by_model(name)) or "unknown for this name"
        raise ValueError(f"found no weights for {name!r}, expected a tag or a file. Its tags: {tags}.")
    try:
        model: Any = library.create_model(name, pretrained, precision="fp32", require_pretrained=True)
        tokenizer = library.get_tokenizer(name)
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"open_clip loads no {name!r} with weights {pretrained!r}: {error}. Expected a pair of "
            "open_clip.list_pretrained(), or a file of weights; without a network, a file."
        ) from error
    model = model.eval().to(device=device, dtype=dtype or torch.float32)
    images = ImageEncoder(model.visual, _preprocessing(model.visual.preprocess_cfg))
    return Clip(images, _Texts(model, tokenizer), float(model.logit_scale.detach().float().exp())).eval().to(device)


def _preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    size, mode, filter_name = settings["size"], settings["resize_mode"], settings["interpolation"]
    if mode not in ("shortest", "squash") or filter_name not in _FILTERS:
        raise ValueError(
            f"found images resized by {mode!r} and {filter_name!r}, expected 'shortest' or 'squash', and 'bicubic' or "
            "'bilinear'. Pass model.encode_image as a callable instead."
        )
    height, width = (size, size) if isinstance(size, int) else size
    square: dict[str, Any] = {"height": height, "width": width}
    sizes: dict[str, Any] = {"size": square}
    if mode == "shortest":
        sizes = {"size": {"shortest_edge": min(height, width)}, "crop_size": square}
    colours = {"image_mean": settings["mean"], "image_std": settings["std"], "resample": _FILTERS[filter_name]}
    return Preprocessing.read({**sizes, **colours}, height, CLIP)


def _library() -> Any:
    try:
        return import_module("open_clip")
    except ImportError as error:
        raise ImportError("load_open_clip needs the package open_clip: pip install open_clip_torch.") from error
    except RuntimeError as error:
        raise ImportError(f"open_clip does not import: {error}. Install a torchvision made for this torch.") from error
