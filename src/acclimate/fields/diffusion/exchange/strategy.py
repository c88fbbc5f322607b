"""The contract of every strategy: how devices come to each other's keys and values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from acclimate.fields.diffusion.exchange.post import Post
from acclimate.fields.diffusion.exchange.shards import QKV
from acclimate.fields.diffusion.residual.context import ResidualContext

__all__ = ["Strategy"]


class Strategy(ABC):
    """One way to attend over all devices' tokens, between processes and simulated, with the same numbers.

    Both methods count what a device sends in `context.books`. One instance belongs to one exchange.
    """

    name: ClassVar[str]

    @abstractmethod
    def simulate(
        self, context: ResidualContext, shards: Sequence[QKV], layer: int, scale: float | None
    ) -> list[Tensor]:
        """What each device gets, `[B, n, H, D]`; there are two or more."""

    @abstractmethod
    def attend(self, context: ResidualContext, post: Post, own: QKV, layer: int, scale: float | None) -> Tensor:
        """What this device gets, `[B, n, H, D]`."""

    def audience(self, rank: int, size: int) -> tuple[int, ...]:
        """The ranks that wait for messages of this one."""
        return tuple(peer for peer in range(size) if peer != rank)

    def reset(self) -> None:
        """Forget what is kept from step to step."""
        return None

    def config(self) -> dict[str, Any]:
        """All that must be the same on every rank, as JSON values."""
        return {"strategy": self.name}
