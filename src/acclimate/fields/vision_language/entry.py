"""The way in: a vision-language model that adapts to the images it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from torch import Tensor, nn

import acclimate
from acclimate.adapted import Adapted
from acclimate.core.guard import Guard
from acclimate.core.method import Method
from acclimate.fields.vision_language.checks import check_auxiliary
from acclimate.fields.vision_language.method import registry
from acclimate.fields.vision_language.model import VisionLanguage

__all__ = ["adapt"]


class _OfModel(TypedDict, total=False):
    """Arguments that `VisionLanguage` has defaults for."""

    auxiliary: Callable[[Tensor], Any] | None
    prompts: nn.Module | None
    logit_scale: float
    classes: Sequence[str]
    repeats: bool


def adapt(
    image_encoder: Callable[[Tensor], Any] | VisionLanguage | None,
    text_features: Tensor | None = None,
    method: str | Method = "cosmic",
    *,
    guard: str | Guard | None = None,
    seed: int = 0,
    **of_model: Unpack[_OfModel],
) -> Adapted:
    """Wrap an encoder and a text matrix so that they adapt, without labels or gradients, to the images they answer.

    Arguments as of `VisionLanguage` (`auxiliary`, `prompts`, `logit_scale`, `classes`, `repeats`), or one in the place
    of the first, with none of these beside it; `method`, a name, `name:preset` or instance; `guard` and `seed` as of
    `acclimate.adapt`.

    An image with a feature that is zero or not finite, whichever encoder it is of, is answered by the texts alone,
    leaves no trace, and is counted in `last.held`; in `last.values["held"]` of what `acclimate.adapt` or `load` made.

    Raises ValueError for a model without what the method looks at, and for what `VisionLanguage` refuses.

    >>> import torch
    >>> images, texts = torch.rand(4, 3, 8, 8), torch.rand(5, 192)
    >>> adapted = adapt(torch.nn.Flatten(), texts, method="tda")
    >>> adapted(images).shape
    torch.Size([4, 5])
    """
    if isinstance(image_encoder, VisionLanguage):
        beside = [name for name, given in (("text_features", text_features), *of_model.items()) if given is not None]
        if beside:
            raise ValueError(
                f"found {', '.join(beside)} beside a VisionLanguage, which has its own, expected neither to overrule "
                "the other. Build the model with them, or pass its image encoder instead of it."
            )
        model = image_encoder
    elif text_features is None:
        raise ValueError("found no text features, expected one row [D] for each class. Build them with text_matrix.")
    else:
        model = VisionLanguage(image_encoder, text_features, **of_model)
    adapted = acclimate.adapt(model.eval(), registry.build(method), guard=guard, seed=seed)
    # before rows are left out, which a row too many or too few would then stand beside
    adapted.register_forward_pre_hook(_check_call, with_kwargs=True)
    adapted.register_forward_hook(_count_held)
    return adapted


def _check_call(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    given = dict(zip(("x", "auxiliary"), args, strict=False)) | dict(kwargs)
    if given.get("auxiliary") is not None and isinstance(given.get("x"), Tensor) and given["x"].ndim:
        check_auxiliary(given["auxiliary"], given["x"])


def _count_held(adapted: nn.Module, _args: tuple[Any, ...], _answer: Any) -> None:
    """Images that the method held, beside those that were held before it."""
    assert isinstance(adapted, Adapted)
    last = adapted.last
    if last is not None:
        last.held = min(last.samples, last.held + int(adapted.state.notes.pop("held", 0)))
