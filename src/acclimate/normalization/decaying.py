"""DUA: running statistics that follow the first samples of a stream, ever more slowly, and then stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import between, one_of, whole
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations
from acclimate.core.table import Table
from acclimate.normalization.ema import EmaLayer
from acclimate.parts.crop import CROPS, crop_and_flip
from acclimate.parts.views import check_images

if TYPE_CHECKING:
    from acclimate.core.state import State

__all__ = ["DecayingStatistics"]

_SEEN = "normalization.seen"


@normalizations.register("dua")
@dataclass(frozen=True, kw_only=True)
class DecayingStatistics(Normalization):
    """Take statistics from augmented copies of single images, at a momentum that decays (DUA).

    For sample k of the stream, `rate_k = decay rate_{k-1}` from `momentum`, and `m_k = rate_k + floor`: one forward of
    `copies` of it, each cropped, mirrored and turned at random and normalised by their own batch, moves
    `run <- (1 - m_k) run + m_k batch` (unbiased variance) from the source's. Then the batch is answered with `run`.
    Of a batch of several samples each takes its turn, in order, until `samples` have been seen since the start or the
    last reset; from then on nothing moves any more and nothing is added to the cost.

    Arguments: `momentum` (0.1), `decay` (0.94) and `floor` (0.005) in [0, 1]; `copies` >= 1 (64); `samples` >= 0 (80);
    `crop`, "padded" (shifted by up to 4 pixels, as for CIFAR), "resized" (preset "imagenet") or "none", which does not
    mirror either; `turned`, whether copies are turned by a random multiple of 90 degrees, of 180 where images are not
    square; `views`, a callable (x, generator) -> x that makes the copies instead.

    Cost: `copies` forwards of a batch for each batch while samples are taken (64 of one image for each), whose time
    the first batches pay; then none. Two vectors for each layer and as many to reset to.
    Raises ValueError for inputs that are no images `[N, C, H, W]`, unless `views` are yours.
    Source: Mirza et al., CVPR 2022. Constants, copies and the end after 80 samples are those of the released code, in
    which the floor is added outside of the recursion. The crop for ImageNet is inferred: it has none of the padding.
    That code reports the best of all its steps on the test images; this answers with the latest.
    Fails when the stream changes after the first samples, and when these are not typical of it.

    >>> from acclimate import adapt
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    >>> adapted = adapt(net, "bn", normalization="dua")
    >>> _ = adapted(torch.rand(80, 3, 8, 8)), adapted(torch.rand(80, 3, 8, 8))
    >>> adapted.last.forwards
    1.0
    """

    observes: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"imagenet": {"crop": "resized"}}
    momentum: float = 0.1
    decay: float = 0.94
    floor: float = 0.005
    copies: int = 64
    samples: int = 80
    crop: str = "padded"
    turned: bool = True
    views: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        between(0, 1, momentum=self.momentum, decay=self.decay, floor=self.floor)
        between(0, 1, sum_of_momentum_and_floor=self.momentum + self.floor)
        whole(1, copies=self.copies)
        whole(0, samples=self.samples)
        one_of(*CROPS, crop=self.crop)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        return DecayingLayer(source, name, table, self.momentum)

    def connect(self, layers: list[NormalizationLayer], table: Table) -> None:
        table.count(_SEEN)
        table.generator(_SEEN)

    def passes(self) -> float:
        return float(self.copies if self.samples else 0)

    def momentum_of(self, sample: int) -> float:
        """With which momentum sample 1, 2, ... of the stream counts."""
        return self.momentum * self.decay**sample + self.floor

    def observe(self, state: State, x: Tensor) -> None:
        counters = state.table.counters
        for row in range(min(len(x), self.samples - counters[_SEEN]) if state.layers else 0):
            counters[_SEEN] += 1
            for layer in state.layers:
                layer.momentum = self.momentum_of(counters[_SEEN])
            copies = self._copies(x[row : row + 1], state.table.generator(_SEEN))
            state.run(copies, "observe", rows=torch.full((len(copies),), row))

    def _copies(self, x: Tensor, generator: torch.Generator) -> Tensor:
        x = x.expand(self.copies, *x.shape[1:])
        if self.views is not None:
            return self.views(x, generator)
        check_images("dua", x, None)
        x = crop_and_flip(x.contiguous(), self.crop, generator)
        return _turned(x, generator) if self.turned else x


class DecayingLayer(EmaLayer):
    """The running statistics of `ema`; the momentum is set anew for each sample."""


def _turned(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image by a multiple of 90 degrees; of 180 where it is not square."""
    step = 1 if x.shape[2] == x.shape[3] else 2
    turns = torch.randint(0, 4 // step, (len(x), 1, 1, 1), generator=generator).to(x.device)
    for turn in range(1, 4 // step):
        x = torch.where(turns == turn, x.rot90(turn * step, (2, 3)), x)
    return x
