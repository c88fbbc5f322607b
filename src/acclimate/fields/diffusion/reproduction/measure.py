"""How images of an exchange differ from those without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn

from acclimate.fields.diffusion.attach.compact import compact
from acclimate.fields.diffusion.quality import Judge, psnr, ssim
from acclimate.fields.diffusion.reproduction.rows import Row
from acclimate.fields.diffusion.residual.books import Stats
from acclimate.fields.diffusion.tiny import sample

__all__ = ["Outcome", "measured"]


@dataclass(slots=True)
class Outcome:
    """What a batch of images came to.

    Attributes: `psnr`, dB over all of them, `each`, of every one, None where nothing differs; `ssim` and `seen`, the
    classifier's distance, means over images; `named`, the share that the classifier names as asked; `errors`, mean
    relative error of what devices know of each other's keys and values, step by step, empty where the exchange tells
    none; `changes`, likewise how much they change from step to step; `course`, `|x - x'| / |x'|` of the sample after
    each step; `sent` and `whole`, bytes of one device, without headers.
    """

    psnr: float | None
    each: list[float | None]
    ssim: float
    seen: float
    named: float
    errors: list[float]
    changes: list[float]
    course: list[float]
    sent: float
    whole: float

    def error(self, after: int) -> float | None:
        """Mean of `errors` behind the warm-up."""
        return fmean(self.errors[after:]) if self.errors[after:] else None


def measured(
    model: nn.Module,
    judge: Judge,
    row: Row,
    labels: Tensor,
    noise: Tensor,
    exact: Tensor,
    devices: int,
) -> tuple[Outcome, Tensor]:
    """Sample once with this exchange on simulated devices; the outcome, and the images `[B, C, H, W]`.

    Arguments: `exact`, the sample after each step without an exchange, `[steps, B, C, H, W]`.
    """
    layers = len(list(model.get_submodule("transformer_blocks").children()))
    course: list[float] = []

    def seen(number: int, x: Tensor) -> None:
        course.append(float((x - exact[number]).norm() / exact[number].norm()))

    with compact(model, devices=devices, **row.arguments(layers)) as compacted:
        images = sample(model, labels, noise, steps=len(exact), seen=seen)
        stats = compacted.stats()
    last = exact[-1]
    found = Outcome(
        psnr=_finite(psnr(images, last)),
        each=[_finite(value) for value in psnr(images, last, each=True)],
        ssim=float(ssim(images, last).mean()),
        seen=float(judge.distance(images, last).mean()),
        named=float((judge.named(images) == labels).double().mean()),
        errors=list(stats.error_by_step()),
        changes=_by_step(stats),
        course=course,
        sent=stats.sent,
        whole=stats.whole,
    )
    return found, images


def _finite(value: Tensor) -> float | None:
    return float(value) if bool(torch.isfinite(value)) else None


def _by_step(stats: Stats) -> list[float]:
    rows: Sequence[Sequence[float]] = list(stats.changes.values())
    return [fmean(column) for column in zip(*rows, strict=True)]
