"""One layer of shallow statistics: what it does follows from its depth and from what the layers before it saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.normalization import NormalizationLayer
from acclimate.normalization.find import pooled
from acclimate.parts.neighbours import first_neighbours, membership

if TYPE_CHECKING:
    from acclimate.normalization.shallow import ShallowStatistics

__all__ = ["Seen", "ShallowLayer", "spread"]

_FLOOR = 1e-3  # of the source's variance: what is constant in a sample has no logarithm

Seen = dict[tuple[str, int], Tensor]
"""Spreads in the running forward, by the layer's name and the number of the batch among several in one."""


class ShallowLayer(NormalizationLayer):
    """Watches, groups or leaves to the source, by its depth.

    `share`, of the batch's statistics in deep layers, and `spread`, of the last answer's batch, are buffers that all
    layers share once they are joined; `seen` too. `batch_share` is what the last answer took of the batch's statistics,
    or of its groups': a number, or 0-dim where only the device knows.
    """

    def __init__(self, source: _BatchNorm, name: str, config: ShallowStatistics) -> None:
        self.seen: Seen = {}  # first, because of `decisions`
        super().__init__(source)
        self.name, self.config, self.joined = name, config, False
        self.batch_share: Tensor | float = 0.0

    def join(self, share: Tensor, spread: Tensor, seen: Seen) -> None:
        """Share what the other layers share."""
        self.joined, self.seen = True, seen
        self.register_buffer("share", share, persistent=False)
        self.register_buffer("spread", spread, persistent=False)

    @property
    def decisions(self) -> Any:
        """What a second run of a part of the running forward needs again."""
        return dict(self.seen)

    @decisions.setter
    def decisions(self, value: Any) -> None:
        self.seen.clear()
        self.seen.update(value or {})

    @property
    def watches(self) -> bool:
        """Whether this layer tells how far the samples of a batch differ."""
        return self.joined and self.config.groups == "auto" and 0 < self.depth < self.config.watch

    @property
    def groups_samples(self) -> bool:
        return self.config.groups != "never" and self.config.watch <= self.depth < self.config.depth

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == 1:
            return self.respond(x)
        return torch.cat([self.respond(part, number) for number, part in enumerate(x.chunk(self.groups))])

    def respond(self, x: Tensor, number: int = 0) -> Tensor:
        """One batch, the `number`th of those in one forward."""
        deep, few = self.depth >= self.config.depth, len(x) < self.config.least
        if self.groups_samples and few:
            self._tell(0.0)
        if x.numel() <= x.shape[1] or (deep and not (self.joined and self.config.follow)):
            self._took(0.0)
            return self.normalise_by_source(x)
        keep = self.config.prior / (self.config.prior + len(x))
        if deep:
            return self._by_whole(x, 1 - self.get_buffer("share") * (1 - keep))
        if x.ndim < 3 or few or not (self.watches or self.groups_samples):
            return self._by_whole(x, keep)
        means, variances = self.moments(x, each=True)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        if self.watches:
            with torch.no_grad():
                self.seen[self.name, number] = spread(variances, self.source_statistics()[1])
        mixed = self._mixed(number) if self.groups_samples else None
        if mixed is None:
            return self._by_whole(x, keep, (mean, variance))
        groups = pooled(means, variances, membership(first_neighbours(means), means.dtype))
        pairs = zip(self._blended(*groups, self.config.source_weight), self._blended(mean, variance, keep), strict=True)
        self._took(torch.where(mixed, 1 - self.config.source_weight, 1 - keep))
        return self.normalise(x, *(torch.where(mixed, grouped, whole) for grouped, whole in pairs))

    def _by_whole(self, x: Tensor, keep: Tensor | float, found: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """By the whole batch's statistics, as `found` or still to find, with a share `keep` of the source's."""
        self._took(1 - keep)
        return self.normalise(x, *self._blended(*(found or self.moments(x)), keep))

    def _took(self, share: Tensor | float) -> None:
        if self.phase == "answer":
            self.batch_share = share

    def _tell(self, value: Tensor | float) -> None:
        """Leave the spread of an answer's batch, where layers watch."""
        if self.phase == "answer" and self.joined and self.config.groups == "auto":
            held = self.get_buffer("spread")
            held.copy_(value) if isinstance(value, Tensor) else held.fill_(value)

    def _mixed(self, number: int) -> Tensor | None:
        """Whether domains mix in this batch, on the device; None where no layer has looked."""
        if self.config.groups == "always":
            return torch.ones((), dtype=torch.bool, device=self.source_statistics()[0].device)
        found = [value for (_, part), value in self.seen.items() if part == number]
        if not found:
            return None
        mean = torch.stack(found).mean()
        self._tell(mean)
        return mean > self.config.level

    def _blended(self, mean: Tensor, variance: Tensor, keep: Tensor | float) -> tuple[Tensor, Tensor]:
        """With a share `keep` of the source's."""
        first, second = (part.to(mean.dtype) for part in self.source_statistics())
        weight = keep.to(mean.dtype) if isinstance(keep, Tensor) else keep
        return torch.lerp(mean, first, weight), torch.lerp(variance, second, weight)


@torch.no_grad()
def spread(variances: Tensor, source: Tensor) -> Tensor:
    """How far samples differ in how much they vary, `mean_c std_b log(v_bc + 1e-3 var_sc)`, from `[N, C]` and `[C]`.

    Samples of one domain vary alike, whatever their classes; those of several do not.

    >>> float(spread(torch.ones(4, 2), torch.ones(2)))
    0.0
    """
    return (variances + _FLOOR * source.to(variances.dtype)).log().std(0).mean()
