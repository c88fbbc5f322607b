"""The way in: a vision-language model that adapts to the images it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

import acclimate
from acclimate.adapted import Adapted
from acclimate.core.guard import Guard
from acclimate.core.method import Method
from acclimate.fields.vision_language.method import registry
from acclimate.fields.vision_language.model import VisionLanguage

__all__ = ["adapt"]


def adapt(
    image_encoder: Callable[[Tensor], Any] | VisionLanguage | None,
    text_features: Tensor | None = None,
    method: str | Method = "cosmic",
    *,
    auxiliary: Callable[[Tensor], Any] | None = None,
    prompts: nn.Module | None = None,
    logit_scale: float = 100.0,
    classes: Sequence[str] = (),
    guard: str | Guard | None = None,
    seed: int = 0,
) -> Adapted:
    """Wrap an encoder and a text matrix so that they adapt, without labels or gradients, to the images they answer.

    Arguments as of `VisionLanguage`, or one in the place of the first; `method`, a name, `name:preset` or instance;
    `guard` and `seed` as of `acclimate.adapt`.

    Raises ValueError for a model without what the method looks at.

    >>> import torch
    >>> images, texts = torch.rand(4, 3, 8, 8), torch.rand(5, 192)
    >>> adapted = adapt(torch.nn.Flatten(), texts, method="tda")
    >>> adapted(images).shape
    torch.Size([4, 5])
    """
    if isinstance(image_encoder, VisionLanguage):
        model = image_encoder
    elif text_features is None:
        raise ValueError("found no text features, expected one row [D] for each class. Build them with text_matrix.")
    else:
        model = VisionLanguage(
            image_encoder, text_features, logit_scale=logit_scale, auxiliary=auxiliary, prompts=prompts, classes=classes
        )
    return acclimate.adapt(model.eval(), registry.build(method), guard=guard, seed=seed)
