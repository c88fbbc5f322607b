"""A vision-language model as one module: images or their features in, logits over a text matrix out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.fields.vision_language.checks import check_auxiliary, named, scale, text_matrix_of
from acclimate.fields.vision_language.lengths import direction

__all__ = ["Seen", "VisionLanguage"]

_MOST = 256
"""Images that an encoder is given at once."""


@dataclass(slots=True)
class Seen:
    """What a forward has seen: unit features of all views, single precision, `[N, V, D]`; of the auxiliary encoder,
    if it was asked for, those of the first view, `[N, A]`."""

    views: Tensor | None = None
    auxiliary: Tensor | None = None


class _Wrapped(nn.Module):
    """A function among modules."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class VisionLanguage(nn.Module):
    """Zero-shot classification: `logits = s f . T`, of the unit features f of an image and T of a class's texts.

    Call it with images `[N, 3, H, W]` in [0, 1], which encoders normalise for themselves; with several views of each,
    `[N, V, 3, H, W]`, of which the first is the image; or, without an image encoder, with their features `[N, D]` or
    `[N, V, D]`. Only the first view is answered. Returns `[N, K]`.

    Arguments:
        image_encoder: images `[n, 3, H, W]` to features `[n, D]`, a module or any callable; None for features.
        text_features: `[K, D]`, one row a class; normalised here, whatever its length.
        logit_scale: s > 0, that of the checkpoint (100 for the published CLIP models).
        auxiliary: a second encoder of images, such as DINOv2, to features `[n, A]`; or None. Where features come in,
            the model is called with `auxiliary=` those of the images, `[N, A]`.
        prompts: gives the text matrix `[K, D]` of a prompt that can be tuned, its parameter named `context`
            (`PromptedTexts`); for methods that tune it, or None.
        classes: names, for pictures and tables, each a different one.
        repeats: allow a name to occur twice (two of the 1000 of ImageNet do).

    A feature that is zero or not finite points nowhere, and all classes are alike to it: its logits are 0.

    Raises ValueError for text features that are not `[K, D]` of finite numbers, none of the rows zero, with K and D of
    at least 1; for another scale; for names that `text_matrix` would refuse or that are not K; and, when it is called,
    for features that are not as wide as the texts', and auxiliary ones that are not a row for each image. Lengths of
    features do not matter, but an adapted model leaves rows beyond 1e6 to the source, as it does with any input.
    Cost: one forward of the image encoder; the auxiliary one runs only for methods that ask for it.

    >>> model = VisionLanguage(nn.Flatten(), torch.eye(3, 12), logit_scale=10.0)
    >>> model(torch.ones(2, 3, 2, 2)).shape
    torch.Size([2, 3])
    """

    text_features: Tensor
    logit_scale: Tensor

    def __init__(
        self,
        image_encoder: Callable[[Tensor], Any] | None,
        text_features: Tensor,
        *,
        logit_scale: float = 100.0,
        auxiliary: Callable[[Tensor], Any] | None = None,
        prompts: nn.Module | None = None,
        classes: Sequence[str] = (),
        repeats: bool = False,
    ) -> None:
        super().__init__()
        texts = text_matrix_of(text_features)
        self.image_encoder = _module(image_encoder)
        self.auxiliary_encoder = _module(auxiliary)
        self.prompts = prompts
        self.classes = named(classes, len(texts), repeats=repeats)
        self.register_buffer("text_features", texts)
        self.register_buffer("logit_scale", torch.tensor(scale(logit_scale)))
        self._seen: Seen | None = None
        self._wants_auxiliary = False

    def forward(self, x: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        if auxiliary is not None:
            check_auxiliary(auxiliary, x)
        views = self._views(x, every=self._seen is not None)
        if self._seen is not None:
            self._seen.views = views
            if self._wants_auxiliary:
                self._seen.auxiliary = self._auxiliary(x, auxiliary)
        return self.logits(views[:, 0]).nan_to_num(0.0, 0.0, 0.0)

    def logits(self, features: Tensor, text_features: Tensor | None = None) -> Tensor:
        """Of unit features `[..., D]` over the classes, `[..., K]`."""
        return self.logit_scale * (features @ (self.text_features if text_features is None else text_features).T)

    @contextlib.contextmanager
    def looking(self, *, auxiliary: bool = False) -> Generator[Seen]:
        """Within this block forwards encode all views and, if asked for, the auxiliary feature, and leave them here."""
        seen = self._seen = Seen()
        self._wants_auxiliary = auxiliary
        try:
            yield seen
        finally:
            self._seen, self._wants_auxiliary = None, False

    def _views(self, x: Tensor, *, every: bool) -> Tensor:
        """Unit features `[N, V, D]`, of the first view only unless `every` is asked for."""
        single = 4 if self.image_encoder is not None else 2
        if x.ndim not in (single, single + 1):
            what = "images [N, 3, H, W], or views of each [N, V, 3, H, W]"
            if self.image_encoder is None:
                what = "features [N, D], or those of several views [N, V, D], since it has no image encoder"
            raise ValueError(f"found an input {list(x.shape)}, expected {what}.")
        views = x[:, None] if x.ndim == single else x if every else x[:, :1]
        flat = views.flatten(0, 1)
        features = flat if self.image_encoder is None else _encoded(self.image_encoder, flat)
        if features.shape[1] != self.text_features.shape[1]:
            raise ValueError(
                f"found features of {features.shape[1]} numbers for text features of {self.text_features.shape[1]}, "
                "expected as many. Encode images and texts by the two sides of one model."
            )
        return direction(features).unflatten(0, views.shape[:2])

    def _auxiliary(self, x: Tensor, given: Tensor | None) -> Tensor:
        if given is not None:
            return direction(given)
        if self.image_encoder is None or self.auxiliary_encoder is None:
            missing = "the model was built without one" if self.image_encoder is not None else "none came with the call"
            raise ValueError(
                f"this method looks at auxiliary features, and {missing}. Pass auxiliary= to vision_language.adapt (an "
                "encoder), or to the call (features), or choose a method or preset without."
            )
        images = x if x.ndim == 4 else x[:, 0]
        return direction(_encoded(self.auxiliary_encoder, images))


def _module(encoder: Callable[[Tensor], Any] | None) -> nn.Module | None:
    return encoder if encoder is None or isinstance(encoder, nn.Module) else _Wrapped(encoder)


def _encoded(encoder: nn.Module, images: Tensor) -> Tensor:
    """Features `[n, D]`, whether the encoder returns them or puts them into an output as `transformers` do."""
    parts = [_features(encoder(part), len(part)) for part in images.split(_MOST)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _features(output: Any, count: int) -> Tensor:
    found = output if isinstance(output, Tensor) else None
    for name in ("image_embeds", "pooler_output"):
        found = getattr(output, name, None) if found is None else found
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != count:
        shape = list(found.shape) if isinstance(found, Tensor) else type(output).__name__
        raise ValueError(
            f"an encoder returned {shape} for {count} images, expected features [{count}, D], one row for each."
        )
    return found
