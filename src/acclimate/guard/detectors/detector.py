"""What every detector of change is: settings, a state of fixed size, and one verdict for each number."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from acclimate.core.config import Configured
from acclimate.core.registry import Registry

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Detector", "blank", "checked", "detectors", "refuse_broken"]


@dataclass(frozen=True, kw_only=True)
class Detector(Configured, abc.ABC):
    """Tells when the numbers of a sequence stop to be what they were.

    What has been seen stands in a tensor of `size` numbers, float64 on the CPU, that the caller keeps: zeros are the
    fresh state, and `update` changes it in place, so it can be declared (`table.declare(name, detector.initial(),
    initial=0.0, kind="memory", merge="first")`) and is then undone, saved and resumed like a weight.
    """

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many numbers the state has."""

    def initial(self) -> Tensor:
        """A fresh state, `[size]`."""
        return blank(self.size)

    def update(self, state: Tensor, value: float) -> bool:
        """Take in the next number; whether a change was found with it.

        Raises ValueError, and changes nothing, for a number that is not finite or a state of another detector.
        """
        refuse_broken(value)
        numbers = memoryview(cast("Buffer", checked(state, self.size).numpy()))
        return self._take(cast("memoryview[float]", numbers), float(value))

    @abc.abstractmethod
    def _take(self, numbers: memoryview[float], value: float) -> bool:
        """`update` on the numbers of the state themselves, which reads and writes Python floats quickly."""


detectors: Registry[Detector] = Registry("detector", "acclimate.guard.detectors", Detector)


def blank(size: int) -> Tensor:
    """The fresh state of a detector or a test: zeros `[size]`, float64 on the CPU."""
    return torch.zeros(size, dtype=torch.float64)


def checked(state: Tensor, size: int) -> Tensor:
    """The state, if it is `[size]`, float64 and on the CPU; else ValueError."""
    if state.shape != (size,) or state.dtype != torch.float64 or state.device.type != "cpu":
        raise ValueError(
            f"the state is {list(state.shape)} {state.dtype} on {state.device}, expected [{size}] torch.float64 on "
            "the CPU. Pass the tensor that initial() of the same settings gave."
        )
    return state


def refuse_broken(value: float) -> None:
    """ValueError for a value that is not finite: a NaN taken in would stay for ever."""
    if not math.isfinite(value):
        raise ValueError(f"found the value {value}, expected a finite number. Leave such a batch out.")
