"""A tiny model of two encoders, images for it, and every method with settings that a few batches try out."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

import acclimate
from acclimate.core.method import Method
from acclimate.fields.vision_language import VisionLanguage, registry
from acclimate.fields.vision_language.methods.boostadapter import BoostAdapter
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.methods.dmn import DMN
from acclimate.fields.vision_language.methods.tda import TDA
from acclimate.fields.vision_language.methods.tip_adapter import TipAdapter
from acclimate.fields.vision_language.methods.tpt import TPT
from acclimate.fields.vision_language.methods.zero import ZERO
from acclimate.fields.vision_language.methods.zero_shot import ZeroShot

from .world import World

CLASSES, SIDE, WIDTH, FINER = 5, 6, 16, 12


class Encoder(nn.Module):
    """A tiny one, which knows how many images each of its forwards saw, and which."""

    def __init__(self, seed: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3 * SIDE * SIDE, width, generator=draw) / 8)
        self.dtype = dtype
        self.seen: list[Tensor] = []
        self.error: BaseException | None = None
        self.factor = 1.0

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.clone())
        if self.error is not None:
            raise self.error
        return self.factor * ((images.flatten(1) - 0.5) @ self.weight).to(self.dtype)

    @property
    def rows(self) -> list[int]:
        return [len(images) for images in self.seen]


class Prompts(nn.Module):
    """Texts behind a context that can be tuned."""

    def __init__(self, texts: Tensor) -> None:
        super().__init__()
        self.register_buffer("names", texts.clone())
        self.context = nn.Parameter(torch.zeros(texts.shape[1]))

    def forward(self) -> Tensor:
        return nn.functional.normalize(self.names + self.context, dim=1)


PROTOTYPES = torch.rand(CLASSES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
SHOWN = Encoder(0, WIDTH)(PROTOTYPES).detach()
TEXTS = SHOWN + 0.3 * torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(8))


def factory(dtype: torch.dtype = torch.float32) -> VisionLanguage:
    return VisionLanguage(
        Encoder(0, WIDTH, dtype),
        TEXTS,
        logit_scale=12.0,
        auxiliary=Encoder(1, FINER, dtype),
        prompts=Prompts(nn.functional.normalize(TEXTS, dim=1)),
    )


def batch(number: int, count: int = 8) -> Tensor:
    draw = torch.Generator().manual_seed(100 + number)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    return (0.6 * PROTOTYPES[labels] + 0.4 * torch.rand(count, 3, SIDE, SIDE, generator=draw)).contiguous()


SMALL: dict[str, Method] = {
    "zero-shot": ZeroShot(),
    "tda": TDA(places=2, negative_places=1),
    "boostadapter": BoostAdapter(views=3, sure=0.7, places=2, area=0.3),
    "zero": ZERO(views=3, sure=0.7),
    "dmn": DMN(views=2, places=2),
    "cosmic": COSMIC(views=2, places=2, auxiliary_places=2, refresh=5),
    "tip-adapter": TipAdapter(features=SHOWN.repeat(2, 1), labels=torch.arange(CLASSES).repeat(2), shots=2),
    "tpt": TPT(views=3, sure=0.7),
}
"""Places and intervals that a few batches fill and reach; a method that is not here runs on its own settings."""

NAMES = list(registry.classes())
KEEPING = ("boostadapter", "cosmic", "dmn", "tda")
"""Those that keep features of the stream."""


def subject(name: str) -> Method:
    return SMALL[name] if name in SMALL else registry.build(name)


def for_features(name: str, of: World) -> Method:
    """The same settings for a world of features."""
    few = {"features": of.texts.repeat(2, 1), "labels": torch.arange(len(of.texts)).repeat(2)}
    return dataclasses.replace(subject(name), **(few if name == "tip-adapter" else {}))


def model_of(name: str, of: World) -> VisionLanguage:
    texts = nn.functional.normalize(of.texts, dim=1)
    return VisionLanguage(None, of.texts, logit_scale=of.scale, prompts=Prompts(texts) if name == "tpt" else None)


def over(name: str, of: World) -> acclimate.Adapted:
    return acclimate.adapt(model_of(name, of), for_features(name, of), guard=None)
