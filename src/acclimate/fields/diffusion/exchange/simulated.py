"""Many devices in one process: the same packets and numbers as between processes, without any."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.fields.diffusion.exchange.attention import attention
from acclimate.fields.diffusion.exchange.shards import QKV, cut, joined
from acclimate.fields.diffusion.exchange.strategies import build
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.residual.books import Stats
from acclimate.fields.diffusion.residual.context import Observer, ResidualContext
from acclimate.fields.diffusion.residual.settings import ResidualSettings
from acclimate.fields.diffusion.residual.suited import suited

__all__ = ["Simulated"]


class Simulated:
    """An `Exchange` that stands for all devices: it is given whole sequences, and cuts them itself.

    Each device's queries see what that device would have: its own keys and values, and the others' as they come out of
    their packets. Packets, books and outputs are those of a `Distributed` run, bit for bit where both are given the
    same queries, keys and values.

    Arguments:
        size: W, devices.
        strategy: a name in `STRATEGIES`, or one of its classes' instances.
        settings: of the compression; the default ones where left out.
        segments: lengths of stretches of the sequence that are each cut over the devices, such as `(n_text, n_image)`
            for joint attention; may be set later.
        measured: whether `stats` tells errors.
        observe: told of every packet: its key, step and bytes.

    Raises:
        ValueError: an argument out of range.

    >>> exchange = Simulated(2, "gather", ResidualSettings(codec="whole"))
    >>> x = torch.ones(1, 4, 1, 8)
    >>> with exchange.evaluation():
    ...     exchange.attend(x, x, x, layer=0).shape
    torch.Size([1, 4, 1, 8])
    >>> exchange.stats().sent
    128.0
    """

    def __init__(
        self,
        size: int,
        strategy: str | Strategy = "gather",
        settings: ResidualSettings | None = None,
        *,
        segments: Sequence[int] | None = None,
        measured: bool = True,
        observe: Observer | None = None,
    ) -> None:
        whole(1, size=size)
        self.rank, self.size, self.segments = 0, size, segments
        self._strategy = build(strategy)
        settings = suited(settings or ResidualSettings(), self._strategy.config())
        self._context = ResidualContext(settings, measured=measured, observe=observe)

    @torch.no_grad()
    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float | None = None) -> Tensor:
        self._context.visit(layer, query, key, value)
        parts = [cut(each, self.size, self.segments) for each in (query, key, value)]
        if self.size == 1:
            return attention(query, key, value, scale)
        shards = [QKV(*shard) for shard in zip(*parts, strict=True)]
        return joined(self._strategy.simulate(self._context, shards, layer, scale), self.segments)

    def evaluation(self, branch: int = 0) -> AbstractContextManager[None]:
        return self._context.evaluation(branch)

    def fail(self, error: BaseException) -> None:
        self._context.spoiled = self._context.spoiled or error

    def reset(self) -> None:
        self._context.reset()
        self._strategy.reset()

    def stats(self) -> Stats:
        return self._context.stats()

    def close(self) -> None:
        return None
