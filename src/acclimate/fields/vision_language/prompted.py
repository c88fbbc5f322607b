"""Texts of classes behind words that can be tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.core.clone import structural_clone
from acclimate.fields.vision_language.encoders.clip import Clip, TextEncoder
from acclimate.fields.vision_language.encoders.towers import TextTower
from acclimate.fields.vision_language.texts.names import readable
from acclimate.parts.features import unit

__all__ = ["PromptedTexts"]

_MOST = 256
"""Prompts that go through the text encoder at once."""


class PromptedTexts(nn.Module):
    """The unit text matrix `[K, D]` of "start name." for each class, whose start is a parameter.

    `context` `[M, width]` holds the embeddings of the M tokens of `start`, shared by all classes. It is the only
    parameter that takes a gradient; untouched, the matrix is that of `text_matrix(..., templates=[start + " {}."])`.
    The text encoder's weights are aliases of those of `clip`, which stays as it is.

    Arguments: `clip` as of `load_clip`; `names` of the classes, underscores become spaces; `start`, one word or more.

    Raises ValueError for a text encoder that is not of `transformers`, bad names, and a start that is empty, too long,
    or runs into the names. Cost: a forward of the text encoder for each class, and a backward for gradients.

    Example: `PromptedTexts(load_clip("openai/clip-vit-base-patch16"), ["cat", "dog"])()`.
    """

    ids: Tensor
    mask: Tensor | None

    def __init__(self, clip: Clip, names: Sequence[str], start: str = "a photo of a") -> None:
        super().__init__()
        encoder = clip.text_encoder
        if not isinstance(encoder, TextEncoder):
            raise ValueError(
                f"found a text encoder {type(encoder).__name__}, expected one of load_clip, whose token embeddings "
                "can be replaced. Load the checkpoint by transformers, or choose a method without prompts."
            )
        tokens = encoder.tokens([f"{start} {name}." for name in readable(names)])
        words = encoder.tokens.words(start)
        self._first = _place(tokens["input_ids"], words, start)
        clone: Any = structural_clone(encoder.tower)
        self.texts: TextTower = clone
        device = self.texts.embedding().weight.device
        self.register_buffer("ids", tokens["input_ids"].to(device))
        mask = tokens.get("attention_mask")
        self.register_buffer("mask", None if mask is None else mask.to(device))
        self.context = nn.Parameter(self.texts.embedding()(words.to(device)).detach().float().clone())

    def forward(self) -> Tensor:
        """The text matrix `[K, D]`, float32, with a gradient to the context where gradients are enabled."""
        handle = self.texts.embedding().register_forward_hook(self._put)
        try:
            masks = [None] * len(self.ids) if self.mask is None else self.mask.split(_MOST)
            parts = [self.texts(ids, mask) for ids, mask in zip(self.ids.split(_MOST), masks, strict=False)]
        finally:
            handle.remove()
        return unit(torch.cat(parts))

    def _put(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """Embeddings `[k, T, width]` of tokens, with the context where the start was."""
        context = self.context.to(output.dtype).expand(len(output), -1, -1)
        end = self._first + context.shape[1]
        return torch.cat([output[:, : self._first], context, output[:, end:]], 1)


def _place(rows: Tensor, words: Tensor, start: str) -> int:
    """Where the same words `[M]` stand in all rows `[K, T]`."""
    length = len(words)
    for place in range(rows.shape[1] - length + 1 if length else 0):
        if bool((rows[:, place : place + length] == words).all()):
            return place
    raise ValueError(
        f"found {start!r} as {length} tokens, which are not in each prompt as they are, expected one word or more with "
        f"room for the class names among {rows.shape[1]} tokens. Choose a shorter start, or one that ends with a word."
    )
