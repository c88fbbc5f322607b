"""What backward keeps: the contract of the memory family."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from acclimate.core.config import Configured
from acclimate.core.registry import Registry

if TYPE_CHECKING:
    from acclimate.compression import Codec
    from acclimate.core.state import State
    from acclimate.memory.keeper import Keeper

__all__ = ["Chooser", "MemoryPolicy", "Saved", "policies"]


@dataclass(frozen=True, slots=True)
class Saved:
    """A tensor that an operation asks autograd to keep, as a policy sees it.

    Arguments:
        tensor: the tensor; a policy may read it and must not hold it.
        operation: the name of torch's function, such as "conv2d"; empty where none of torch's functions is running.
        family: what kind of operation that is, see `acclimate.memory.operations`; empty for one that is not known.
        role: the name of the argument that the tensor is, or "output".
        layer: the dotted name of the operation's weight in the model; empty where it has none of the model's.
        arguments: of the operation, by name.
    """

    tensor: Tensor
    operation: str
    family: str
    role: str
    layer: str
    arguments: Mapping[str, Any]

    def learns(self, argument: str = "weight") -> bool:
        """Whether the gradient of this argument will be asked for."""
        value = self.arguments.get(argument)
        return isinstance(value, Tensor) and value.requires_grad


Chooser = Callable[[Saved], "Codec"]
"""Says how one tensor is kept."""


@dataclass(frozen=True, kw_only=True)
class MemoryPolicy(Configured, abc.ABC):
    """Decides for each tensor that backward needs how it is kept.

    Tensors that live anyway (weights and buffers of the model) and those of fewer than 4,096 values are kept as they
    are, and so is what is already kept so for another operation; the policy is asked for the others.
    """

    @property
    def by_depth(self) -> bool:
        """Whether `setup` wants to know `state.order`; it is then called once more before the first batch."""
        return False

    def setup(self, state: State) -> None:
        """Declare what is carried from batch to batch. Called once, when the method has declared what adapts."""

    @abc.abstractmethod
    def begin(self, state: State, x: Tensor, keeper: Keeper) -> Chooser:
        """Look at a batch before the method's step on it; returns how that step's tensors are kept.

        What autograd saves meanwhile is kept as `keeper.choosing` says, and counts in its books. Contexts entered into
        `keeper.closing` end with the step.
        """

    def held_to(self, limit: float) -> Self:
        """The same policy, made to choose so that `keeper.planned` is never more than so many bytes for each sample.

        A policy that plans nothing, because it always takes as much, is itself, and so is one with a limit of its own.
        """
        return self

    def most(self, samples: int) -> float:
        """The most that `keeper.planned` can be for so many samples, as far as the policy limits it; else 0."""
        return 0.0

    def passes(self, samples: int, weights: Iterable[Tensor] | None = None) -> tuple[float, int]:
        """What `begin` adds to a step on so many samples: forwards, as a share of the batch, and backwards.

        At most so much; exactly for these adapted weights, where they are given.
        """
        return 0.0, 0


policies: Registry[MemoryPolicy] = Registry("memory policy", "acclimate.memory", MemoryPolicy)
