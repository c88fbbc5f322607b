"""A border measured once, on images of the source under shifts of our own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.core.state import State
from acclimate.parts.diversity.discriminator import Discriminator, Threshold, discriminators
from acclimate.parts.pseudo_domains import pseudo_domains
from acclimate.parts.source_images import source_batches

__all__ = ["Reference"]

_log = logging.getLogger(__name__)
_LEAST_GAP = 1.1


@discriminators.register("reference")
@dataclass(frozen=True, kw_only=True)
class Reference(Discriminator):
    """`Q = sqrt(median S_single median S_mixed)` over pseudo-batches of the source; holds from the first batch on.

    Single ones have one of the shifts of `pseudo_domains` each, in turn, mixed ones a random shift for each image. If
    the medians come in the wrong order or within 10 % of each other, that is logged and there is no border. Ours, not
    DATTA's.

    Arguments: `source`, images [N, ...] in [0, 1] or batches of them, used once and not saved; `samples` >= 2 of them;
    `batch_size` >= 2 of a pseudo-batch, best that of the stream, and `batches` >= 1 of each kind.
    """

    warm_up: int = 1
    source: Any = field(default=None, repr=False, compare=False, metadata={"recorded": False})
    samples: int = 256
    batch_size: int = 64
    batches: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(2, samples=self.samples, batch_size=self.batch_size)
        whole(1, batches=self.batches)

    @property
    def lacks_source(self) -> bool:
        """Whether it still has to be given images of the source."""
        return self.source is None

    def threshold(self, scores: Tensor) -> Threshold | None:
        return None

    @property
    def reference(self) -> Reference:
        return self

    def measure(self, state: State, score: Callable[[Tensor], float]) -> Tensor:
        """The two medians, `[2]` float64, or -1 twice where they are of no use; `score` runs a batch."""
        if self.source is None:
            raise ValueError(
                "this discriminator measures images of the source, and was given none. Pass Reference(source=images), "
                "or choose 'kde', 'otsu' or 'quantile', which do without."
            )
        generator = torch.Generator().manual_seed(state.table.seed)
        views: list[list[Tensor]] = []
        for x, _ in source_batches(state, self.source, self.batch_size, samples=self.samples):
            extremes = float(x.min()), float(x.max())
            views.append([view.cpu() for view in pseudo_domains(x, extremes, generator)])
        domains = torch.stack([torch.cat(parts) for parts in zip(*views, strict=True)])
        kinds, count = domains.shape[:2]
        batches = list[Tensor]()
        for number in range(self.batches):
            rows = torch.randperm(count, generator=generator)[: self.batch_size]
            each = torch.randint(kinds, (len(rows),), generator=generator)
            batches += [domains[number % kinds, rows], domains[each, rows]]
        found = [score(x) for x, _ in source_batches(state, batches, self.batch_size)]
        low, high = (torch.tensor(scores, dtype=torch.float64).median() for scores in (found[::2], found[1::2]))
        if not float(high) > _LEAST_GAP * float(low):
            _log.warning(
                "Mixed pseudo-batches score %.4f and those of one shift %.4f: this model's first batch norm does not "
                "tell them apart, and every batch counts as mixed.",
                float(high),
                float(low),
            )
            return torch.full((2,), -1.0, dtype=torch.float64)
        return torch.stack([low, high])

    @staticmethod
    def border(medians: Tensor) -> Threshold | None:
        """The geometric mean of the medians; None where they are of no use."""
        low, high = medians.tolist()
        return Threshold((low * high) ** 0.5, low, high) if low >= 0 else None
