"""Digits by a small network of layers, and CIFAR-10 by a small convolutional one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from acclimate.fields.wide_area.workloads.workload import Workload
from acclimate.models.initial import private_init
from acclimate.streams.dataset import Dataset
from acclimate.streams.datasets import load_dataset

__all__ = ["cifar10", "digits"]

_HELD, _CHUNK = 2000, 500


def digits() -> Workload:
    """8 x 8 handwritten digits, 1,000 to learn from; 64-256-128-10, 50,826 numbers [I: specification, 12.3].

    Held out are the other 797; it counts as learned at 95.5 %.
    """
    learned, held = (load_dataset("digits", split) for split in ("train", "test"))

    def rows(images: Tensor) -> Tensor:
        return F.avg_pool2d(images[:, :1].float(), 4).flatten(1) / 255

    def build(seed: int) -> nn.Module:
        with private_init(seed):
            return nn.Sequential(
                nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
            )  # fmt: skip

    return _classified(
        "digits", (rows(_read(learned)), learned.labels), (rows(_read(held)), held.labels), build, 0.955, 16
    )


def cifar10(data: str | Path | None = None, count: int = 10_000) -> Workload:
    """CIFAR-10, `count` of its training images; four convolutions with group norms, 291,362 numbers.

    Held out are 2,000 other training images, so that rates may be chosen by it; it counts as learned at 40 %.
    """
    images = load_dataset("cifar10", "train", data=data)
    order = torch.randperm(len(images.labels), generator=Generator().manual_seed(0))
    learned, held = order[:count], order[count : count + _HELD]

    def build(seed: int) -> nn.Module:
        with private_init(seed):
            return nn.Sequential(
                *_step(3, 32, 2), *_step(32, 64, 2), *_step(64, 128, 2), *_step(128, 170, 1),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(170, 10),
            )  # fmt: skip

    def pixels(images: Tensor) -> Tensor:
        return (images.float() / 255 - 0.5) / 0.25

    return _classified(
        "cifar10",
        (pixels(_read(images, learned)), images.labels[learned]),
        (pixels(_read(images, held)), images.labels[held]),
        build,
        0.4,
        32,
    )


def _read(pictures: Dataset, index: Tensor | None = None) -> Tensor:
    """The pixels at these places, or all."""
    return pictures.read(torch.arange(len(pictures)) if index is None else index)


def _step(inner: int, outer: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.GroupNorm(2, outer), nn.ReLU()]


def _classified(
    name: str,
    learned: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor],
    build: Callable[[int], nn.Module],
    target: float,
    batch: int,
) -> Workload:
    inputs, labels = learned

    def loss(model: nn.Module, index: Tensor) -> Tensor:
        return F.cross_entropy(model(inputs[index]), labels[index])

    @torch.no_grad()
    def score(model: nn.Module) -> float:
        found = torch.cat([model(part).argmax(1) for part in held[0].split(_CHUNK)])
        return float((found == held[1]).float().mean())

    return Workload(
        name=name, count=len(labels), keys=labels, build=build, loss=loss, score=score, target=target, batch_size=batch
    )
