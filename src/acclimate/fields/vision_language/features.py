"""Precomputed features of labelled images: what every method runs on without encoders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acclimate.core.config import whole, whole_or_none
from acclimate.fields.vision_language.checks import named
from acclimate.fields.vision_language.data.order import arranged
from acclimate.fields.vision_language.lengths import even
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.streams.segments import Segment
from acclimate.streams.stream import Batch

__all__ = ["FeatureBatch", "Features"]

_LOG_OF_100 = math.log(100)
_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class FeatureBatch(Batch):
    """A batch whose `images` are features `[B, V, D]`, with those of the auxiliary encoder `[B, A]` if there are any:
    `adapted(batch.images, auxiliary=batch.auxiliary)`."""

    auxiliary: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Features:
    """Features of n images and of the texts of K classes. Lengths do not matter, directions do.

    Arguments:
        clip: of all views, float `[n, V, D]`, the first that of the image itself; or `[n, D]`.
        text: float `[K, D]`, a row for each class.
        logit_scale: s itself, 100 for the published CLIP models, not its logarithm.
        auxiliary: of a second encoder, float `[n, A]`.
        simple: texts of the plain prompt "a photo of a {}." as a baseline, float `[K, D]`.
        labels: int64 `[n]`, for whoever scores answers; -1 where unknown, none at all by default.
        classes: K names, each a different one.
        repeats: allow a name to occur twice (two of the 1000 of ImageNet do).
        name: of the data set; it decides about the order together with the seed.

    Raises ValueError for another number of axes or rows, for rows that are not finite or all zero, which are named, for
    labels out of range, and for names that are empty or repeat.

    >>> features = Features(clip=torch.eye(3, 4), text=torch.eye(2, 4), labels=torch.tensor([0, 1, -1]))
    >>> [(list(batch.images.shape), batch.labels.tolist()) for batch in features.batches(batch_size=2, seed=None)]
    [([2, 1, 4], [0, 1]), ([1, 1, 4], [-1])]
    """

    clip: Tensor
    text: Tensor
    logit_scale: float = 100.0
    auxiliary: Tensor | None = None
    simple: Tensor | None = None
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    repeats: bool = False
    name: str = "features"

    def __post_init__(self) -> None:
        for what in ("clip", "text", "auxiliary", "simple", "labels"):
            self._check_kind(what, getattr(self, what))
        if self.clip.ndim == 2:
            object.__setattr__(self, "clip", self.clip[:, None])
        count, classes = len(self.clip), len(self.text)
        width = self.clip.shape[-1]
        self._check("clip", self.clip, (None, None, width), "[n, D] or [n, V, D]")
        self._check("text", self.text, (None, width), f"[K, {width}], as wide as clip")
        if self.auxiliary is not None:
            self._check("auxiliary", self.auxiliary, (count, None), f"[{count}, A], a row for each of clip")
        if self.simple is not None:
            self._check("simple", self.simple, (classes, width), f"[{classes}, {width}], as text is")
        if not 0 < self.logit_scale < math.inf or abs(self.logit_scale - _LOG_OF_100) < 1e-3:
            raise ValueError(
                f"{self.name!r} has logit_scale {self.logit_scale:g}, expected a finite number above 0, and not its "
                "logarithm. For the published CLIP models it is 100."
            )
        try:
            named(self.classes, classes, repeats=self.repeats)
        except ValueError as error:
            raise ValueError(f"{self.name!r}: {error}") from error
        if self.labels is not None:
            self._check_labels(self.labels, count, classes)

    def _check_kind(self, what: str, given: Any) -> None:
        optional = what not in ("clip", "text")
        if (given is None and optional) or (isinstance(given, Tensor) and given.ndim):
            return
        found = "a single number" if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(f"{self.name!r} has {found} as {what}, expected a tensor with a row for each image or class.")

    def _check(self, what: str, array: Tensor, shape: tuple[int | None, ...], expected: str) -> None:
        fits = len(array.shape) == len(shape) and all(
            size > 0 and wanted in (None, size) for size, wanted in zip(array.shape, shape, strict=True)
        )
        if not fits or not array.is_floating_point() or torch.finfo(array.dtype).bits < 16:
            raise ValueError(
                f"{self.name!r} has {what} {array.dtype} {list(array.shape)}, expected floats {expected}, of 16 bits "
                "or more."
            )
        extent = torch.cat([part.abs().amax(1) for part in array.flatten(0, -2).split(_AT_ONCE)])
        for bad, told in ((~extent.isfinite(), "not finite"), (extent == 0, "all zero")):
            if bad.any():
                rows = bad.view(len(array), -1).any(1).nonzero().flatten().tolist()
                named = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
                raise ValueError(
                    f"{self.name!r} has {len(rows)} rows of {what} that are {told}: {named}. Leave these images out, "
                    "or encode them again."
                )

    def _check_labels(self, labels: Tensor, count: int, classes: int) -> None:
        if labels.is_floating_point() or labels.is_complex() or labels.shape != (count,):
            raise ValueError(
                f"{self.name!r} has labels {labels.dtype} {list(labels.shape)}, expected whole numbers [{count}]."
            )
        labels = labels.long()
        outside = ((labels < -1) | (labels >= classes)).nonzero().flatten().tolist()
        if outside:
            raise ValueError(
                f"{self.name!r} has {len(outside)} labels out of range, such as {int(labels[outside[0]])} in row "
                f"{outside[0]}, expected 0 to {classes - 1}, or -1 where unknown. Count classes as text does."
            )
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.clip)

    @property
    def views(self) -> int:
        """Of each image, the image itself included."""
        return self.clip.shape[1]

    def model(self, *, simple: bool = False) -> VisionLanguage:
        """The model of these texts, or of the plain prompts', which is called with features."""
        if simple and self.simple is None:
            raise ValueError(f"{self.name!r} has no texts of plain prompts, expected an array 'simple' [K, D].")
        text = self.simple if simple and self.simple is not None else self.text
        return VisionLanguage(
            None, text, logit_scale=self.logit_scale, classes=self.classes, repeats=self.repeats
        ).eval()

    def batches(
        self, *, batch_size: int = 64, seed: int | None = 0, size: int | None = None, views: int | None = None
    ) -> Iterator[FeatureBatch]:
        """Features in batches, float32, at lengths that neither vanish nor are taken for a fault.

        Arguments:
            batch_size: images in a batch; the last one may be smaller.
            seed: of the order, in which `LabelledImages` of the same name and length come as well; None for the stored.
            size: at most so many images, evenly spaced in stored order.
            views: at most so many of each image, the first ones.
        """
        whole(1, batch_size=batch_size)
        whole_or_none(1, views=views)
        segment = Segment(self.name, 0)
        for position, index in enumerate(arranged(self.name, len(self), seed, size).split(batch_size)):
            unknown = torch.full_like(index, -1)
            labels = unknown if self.labels is None else self.labels[index]
            auxiliary = None if self.auxiliary is None else even(self.auxiliary[index]).float()
            clip = even(self.clip[index, :views]).float()
            yield FeatureBatch(clip, labels, index, segment, position, auxiliary=auxiliary)
