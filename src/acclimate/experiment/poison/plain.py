"""Attacks, and accidents that look like them, that need to know nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.core.config import positive, whole
from acclimate.experiment.poison.attack import Attack, Knowledge, Scene, attacks

__all__ = ["Bystanders", "ClassFlood", "StalledCamera"]

_NOTHING = Knowledge("none", benign=False, when="online")


@attacks.register("bystanders")
@dataclass(frozen=True, kw_only=True)
class Bystanders(Attack):
    """Ordinary images: what rows of somebody else's do when they mean no harm. Every attack is compared with it."""

    knows: ClassVar[Knowledge] = _NOTHING

    def rows(self, scene: Scene) -> Tensor:
        return scene.take(scene.draw(scene.count))


@attacks.register("flood")
@dataclass(frozen=True, kw_only=True)
class ClassFlood(Attack):
    """Ordinary images, all of one class (`label`, from 0), for as long as the attack lasts."""

    knows: ClassVar[Knowledge] = _NOTHING
    share: float = 0.8
    label: int = 0

    def check(self) -> None:
        whole(0, label=self.label)

    def rows(self, scene: Scene) -> Tensor:
        among = (scene.labels == self.label).nonzero().flatten()
        if not len(among):
            raise ValueError(f"the attacker has no image of class {self.label}. Name one that the data set has.")
        return scene.take(scene.draw(scene.count, among))


@attacks.register("stalled-camera")
@dataclass(frozen=True, kw_only=True)
class StalledCamera(Attack):
    """One frame again and again, for `hold` batches, with noise of standard deviation `noise`, of full scale."""

    knows: ClassVar[Knowledge] = _NOTHING
    share: float = 0.8
    hold: int = 20
    noise: float = 0.01

    def check(self) -> None:
        whole(1, hold=self.hold)
        positive(noise=self.noise)

    def rows(self, scene: Scene) -> Tensor:
        frame = scene.take(torch.tensor([scene.position // self.hold % len(scene.labels)]))
        speckle = torch.randn((scene.count, *frame.shape[1:]), generator=scene.generator)
        return (frame + self.noise * speckle).clamp_(0, 1)
