"""What PyTorch does by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from acclimate.compression import Codec, Exact
from acclimate.core.memory import Chooser, MemoryPolicy, Saved, policies

if TYPE_CHECKING:
    from acclimate.core.state import State
    from acclimate.memory.keeper import Keeper

__all__ = ["Stock", "as_it_is"]


def as_it_is(saved: Saved) -> Codec:
    """Keep the tensor itself."""
    return Exact()


@policies.register("stock")
@dataclass(frozen=True, kw_only=True)
class Stock(MemoryPolicy):
    """Every operation keeps what it asks for. Nothing is looked at, so this costs nothing."""

    def begin(self, state: State, x: Tensor, keeper: Keeper) -> Chooser:
        return as_it_is
