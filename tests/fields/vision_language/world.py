"""A world of features: classes in groups, images apart from texts, noisy views, and a second space that is tighter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import acclimate
from acclimate.adapted import Adapted
from acclimate.core.method import Method
from acclimate.fields.vision_language import VisionLanguage


@dataclass(frozen=True)
class World:
    """Features of any length: `texts` `[K, D]`, `views` `[n, V, D]`, `auxiliary` `[n, A]`; and `labels` `[n]`."""

    texts: Tensor
    views: Tensor
    auxiliary: Tensor
    labels: Tensor
    scale: float

    def model(self) -> VisionLanguage:
        return VisionLanguage(None, self.texts, logit_scale=self.scale)

    def adapt(self, method: Method, seed: int = 0) -> Adapted:
        return acclimate.adapt(self.model(), method, guard=None, seed=seed)

    def batches(self, *sizes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Views and auxiliary features, so many at a time, the last size again and again."""
        start, given = 0, list(sizes)
        while start < len(self.views):
            size = given.pop(0) if len(given) > 1 else given[0]
            yield self.views[start : start + size], self.auxiliary[start : start + size]
            start += size

    def answers(self, adapted: Adapted, *sizes: int) -> Tensor:
        return torch.cat([adapted(x, auxiliary=z) for x, z in self.batches(*sizes)])

    def accuracy(self, method: Method) -> float:
        """In per cent."""
        found = self.answers(self.adapt(method), 50).argmax(1)
        return 100 * float((found == self.labels).double().mean())


def world(
    seed: int = 0,
    *,
    classes: int = 6,
    images: int = 120,
    views: int = 4,
    width: int = 16,
    finer: int = 12,
    groups: int = 2,
    scale: float = 25.0,
    noise: float = 0.7,
    jitter: float = 0.4,
    text_noise: float = 0.6,
    finer_noise: float = 0.5,
    gap: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> World:
    """Draw it. The noise of a vector has about this length beside a class mean of length 1."""
    draw = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return draw.standard_normal(shape) / np.sqrt(shape[-1])

    group = np.arange(classes) % groups
    means = 0.8 * normal(groups, width)[group] + 0.6 * normal(classes, width)
    fine = 0.6 * normal(groups, finer)[group] + 0.8 * normal(classes, finer)
    of_images, of_texts = gap * normal(width), gap * normal(width)
    labels = draw.integers(0, classes, images)
    texts = of_texts + means + text_noise * normal(classes, width)
    whole = (of_images + means[labels] + noise * normal(images, width))[:, None]
    seen = whole + jitter * normal(images, views, width)
    seen[:, 0] = whole[:, 0] + jitter / 2 * normal(images, width)
    auxiliary = gap * normal(finer) + fine[labels] + finer_noise * normal(images, finer)
    lengths = draw.uniform(0.5, 2.0, (images, views, 1))
    found = (texts, seen * lengths, auxiliary * lengths[:, 0])
    return World(*(torch.from_numpy(each).to(dtype) for each in found), torch.from_numpy(labels), scale)
