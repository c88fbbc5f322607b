"""The two towers of the small image-text model, the second encoder, and prompts that can be tuned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from acclimate.fields.vision_language.tiny.captions import Captions, named
from acclimate.models.initial import private_init
from acclimate.models.residual import ResidualNet
from acclimate.models.weights import filled
from acclimate.parts.features import unit
from acclimate.streams.cifar_names import CIFAR10_CLASSES

__all__ = ["TinyClip", "TinyPrompts", "TinySight", "tiny_clip", "tiny_sight"]

_WIDTH, _LENGTH = 64, 16


class TinyTexts(nn.Module):
    """A transformer of two layers over words: token numbers `[n, L]` to features `[n, D]`, of the last word."""

    def __init__(self, words: Sequence[str], width: int = _WIDTH) -> None:
        super().__init__()
        self.numbers = {word: number for number, word in enumerate(words, start=2)}  # 0 is nothing, 1 an unknown word
        self.embedding = nn.Embedding(len(words) + 2, width, padding_idx=0)
        self.places = nn.Parameter(0.02 * torch.randn(_LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Numbers of the words `[n, L]`; what is longer than 16 words is cut."""
        rows = [[self.numbers.get(word, 1) for word in text.lower().strip(" .").split()][:_LENGTH] for text in texts]
        found = torch.zeros(len(rows), _LENGTH, dtype=torch.int64)
        for place, row in enumerate(rows):
            found[place, : len(row)] = torch.tensor(row)
        return found.to(self.places.device)

    def forward(self, tokens: Tensor, embedded: Tensor | None = None) -> Tensor:
        """`embedded` `[n, L, D]` stands for the words' own embeddings."""
        x = (self.embedding(tokens) if embedded is None else embedded) + self.places
        nothing = tokens == 0
        x = self.layers(x, src_key_padding_mask=nothing)
        last = (~nothing).sum(1).clamp_min(1) - 1
        return self.norm(x[torch.arange(len(x), device=x.device), last])


class TinyClip(nn.Module):
    """Images `[N, 3, 32, 32]` in [0, 1] and texts in one space of 64 numbers.

    `image_encoder`, a residual net of 20 layers; `encode_text` of sentences, `[n, 64]`; `logit_scale`.
    """

    def __init__(self, names: Sequence[str] = CIFAR10_CLASSES, seed: int = 0) -> None:
        super().__init__()
        self.names = tuple(names)
        self.image_encoder = ResidualNet(_WIDTH, seed=seed)
        with private_init(seed):
            self.texts = TinyTexts(Captions(names).words())
        self.log_scale = nn.Parameter(torch.tensor(2.6))

    @property
    def logit_scale(self) -> float:
        return float(self.log_scale.detach().exp())

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Features `[n, 64]`, not normalised."""
        return self.texts(self.texts.tokens(texts))

    def forward(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """How well images and texts go together, `[N, n]`."""
        return self.log_scale.exp() * (unit(self.image_encoder(images)) @ unit(self.encode_text(texts)).T)


class TinyPrompts(nn.Module):
    """Texts of classes behind words that can be tuned: `context` `[M, 64]`, at first those of `start`."""

    def __init__(self, clip: TinyClip, start: str = "a photo of") -> None:
        super().__init__()
        self.texts = clip.texts
        whole = [f"{start} {named(name)}" for name in clip.names]
        self.register_buffer("tokens", clip.texts.tokens(whole))
        self.tokens: Tensor
        length = len(start.split())
        self.context = nn.Parameter(clip.texts.embedding(self.tokens[0, :length]).detach().clone())

    def forward(self) -> Tensor:
        """The text matrix, unit rows `[K, 64]`, with a gradient to the context alone."""
        own = self.texts.embedding(self.tokens).detach()
        words = torch.cat([self.context.expand(len(own), -1, -1), own[:, len(self.context) :]], 1)
        return unit(self.texts(self.tokens, words))


class TinySight(nn.Module):
    """Images `[N, 3, 32, 32]` in [0, 1] to features `[N, 64]` that were learned without labels: see `SightRecipe`."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.body = ResidualNet(_WIDTH, seed=seed + 1)
        with private_init(seed + 1):
            self.head = nn.Sequential(nn.ReLU(), nn.Linear(_WIDTH, _WIDTH))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def tiny_clip(weights: str | Path | None = None, *, seed: int = 0) -> TinyClip:
    """The small image-text model in evaluation mode, with the weights of a file, or else random ones."""
    return filled(TinyClip(seed=seed), weights)


def tiny_sight(weights: str | Path | None = None, *, seed: int = 0) -> TinySight:
    """The second encoder in evaluation mode, likewise."""
    return filled(TinySight(seed=seed), weights)
