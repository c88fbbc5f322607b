"""The contract of every exchange: attention of a device's tokens to those of all."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from acclimate.fields.diffusion.residual.books import Stats

__all__ = ["Exchange"]


class Exchange(Protocol):
    """Self-attention over a sequence that is cut over devices.

    An image is a `reset` and then evaluations of the model; within one, every layer calls `attend` once, on every rank
    in the same order.
    """

    @property
    def rank(self) -> int:
        """Of this device; 0 where one process stands for all."""
        ...

    @property
    def size(self) -> int:
        """Devices that share the sequence."""
        ...

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float | None = None) -> Tensor:
        """`softmax(scale Q K^T) V` of the own queries over the tokens of all devices.

        Arguments:
            query, key, value: of the own tokens `[B, n, H, D]`, after normalisation and rotation; of the whole
                sequence where one process stands for all devices.
            layer: number of the layer, the same on all ranks.
            scale: `1 / sqrt(D)` by default.

        Raises:
            ValueError: shapes or values that cannot be exchanged, or a layer out of turn.
            LinkFault: what failed between ranks; reset all of them.
        """
        ...

    def evaluation(self, branch: int = 0) -> AbstractContextManager[None]:
        """One forward of the model, of one branch of guidance."""
        ...

    def reset(self) -> None:
        """Forget everything, before every image; on all ranks."""
        ...

    def fail(self, error: BaseException) -> None:
        """Give the image up because of what went wrong here, and tell all other ranks; `reset` begins the next."""
        ...

    def stats(self) -> Stats:
        """Bytes and errors since the last reset."""
        ...

    def close(self) -> None:
        """Give up messages under way; never waits for a peer."""
        ...
