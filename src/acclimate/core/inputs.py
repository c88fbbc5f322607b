"""What comes in: the input tensor of a call, and which of its rows are fit to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from acclimate.core.output import replace_tensors

__all__ = ["LARGEST", "Call", "even_rows", "fit_rows"]

LARGEST = 1e6
"""Inputs beyond this magnitude are taken for a broken sensor, not for data."""


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call of the model; `x` is the first tensor among them, floating point preferred."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    place: int | str

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, indices: bool) -> Call:
        """Find the input. ValueError for no tensor, no rows, or integers where the model takes none."""
        places: list[int | str] = [n for n, value in enumerate(args) if isinstance(value, Tensor)]
        places += [name for name, value in kwargs.items() if isinstance(value, Tensor)]
        if not places:
            given = ", ".join(type(value).__name__ for value in (*args, *kwargs.values())) or "nothing"
            raise ValueError(f"the model was called with {given}, expected at least one tensor [N, ...].")
        call = cls(args, kwargs, places[0])
        floats = [place for place in places if call.at(place).is_floating_point()]
        call = replace(call, place=floats[0] if floats else places[0])
        if call.x.ndim < 2:
            raise ValueError(
                f"the input has shape {list(call.x.shape)}, expected a batch [N, ...]. Use x[None] for one sample."
            )
        if len(call.x) == 0:
            raise ValueError(f"the batch is empty: shape {list(call.x.shape)}. Leave empty batches out.")
        if not floats and not indices:
            raise ValueError(
                f"the input is {call.x.dtype}, expected floating point in the range the model was trained on. "
                "For images of whole numbers 0..255 use x.float() / 255."
            )
        return call

    def at(self, place: int | str) -> Any:
        return self.args[place] if isinstance(place, int) else self.kwargs[place]

    @property
    def x(self) -> Tensor:
        return self.at(self.place)

    def with_input(self, x: Tensor) -> Call:
        """The same call on another input."""
        if isinstance(self.place, int):
            return replace(self, args=(*self.args[: self.place], x, *self.args[self.place + 1 :]))
        return replace(self, kwargs={**self.kwargs, self.place: x})

    def rows(self, keep: Tensor) -> Call:
        """The same call on some rows of every tensor, however nested, that has as many rows as the input."""
        return self.rows_of(keep, len(self.x))

    def beside(self, x: Tensor, index: Tensor) -> Call:
        """The same call on another input, whose rows stand for rows `index` of this one."""
        return self.with_input(x[:0]).rows_of(index, len(self.x)).with_input(x)

    def rows_of(self, keep: Tensor, count: int) -> Call:
        """The same call on some rows of every tensor, however nested, that has `count` rows."""

        def pick(value: Tensor) -> Tensor:
            return value[keep.to(value.device)] if value.ndim > 0 and len(value) == count else value

        return self._mapped(pick)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Call:
        args = tuple(replace_tensors(value, change) for value in self.args)
        return Call(args, {name: replace_tensors(value, change) for name, value in self.kwargs.items()}, self.place)

    def _tensors(self) -> list[Tensor]:
        found = list[Tensor]()

        def look(value: Tensor) -> Tensor:
            found.append(value)
            return value

        self._mapped(look)
        return found

    @property
    def alone(self) -> bool:
        """Whether no other tensor, however nested, has as many rows as the input."""
        return sum(value.ndim > 0 and len(value) == len(self.x) for value in self._tensors()) == 1

    @property
    def nbytes(self) -> int:
        """Bytes of the values of all its tensors, however nested."""
        return sum(value.nbytes for value in self._tensors())

    def ordinary(self) -> Call:
        """The same call with tensors made under `inference_mode` replaced by copies that autograd accepts."""
        return self._mapped(lambda value: value.clone() if value.is_inference() else value)


def even_rows(count: int, wanted: int, device: torch.device | None = None) -> Tensor:
    """Positions of `wanted` of `count` rows, evenly over the batch.

    >>> even_rows(10, 4).tolist()
    [0, 2, 5, 7]
    """
    return torch.arange(wanted, device=device) * count // wanted


@torch.no_grad()
def fit_rows(x: Tensor) -> tuple[Tensor | None, tuple[float, float]]:
    """Which rows may be learned from, `[N]` bool on the CPU or None when all may; and the extremes of those.

    A row is unfit if it holds NaN, an infinity or a magnitude beyond `LARGEST`, or if it is an image
    (three or more axes) of one single value. When the remaining rows, two or more, are all identical, the
    source of the stream has stalled and none is fit. One reduction on the device and one read of `2 N`
    numbers: the only host read of a step.
    """
    if not x.is_floating_point():
        return None, (0.0, 0.0)
    flat = x.flatten(1)
    low, high = (bound.float() for bound in flat.aminmax(dim=1))
    low, high = torch.stack([low, high]).cpu()
    fit = (low >= -LARGEST) & (high <= LARGEST)
    if x.ndim > 2:
        fit &= low < high
    kept = fit.nonzero().flatten()
    if len(kept) == 0:
        return fit, (0.0, 0.0)
    if len(kept) > 1 and bool((low[kept] == low[kept[0]]).all()) and bool((high[kept] == high[kept[0]]).all()):
        rows = flat[kept.to(x.device)]
        if bool((rows == rows[:1]).all()):
            fit[:] = False
    return None if bool(fit.all()) else fit, (float(low[kept].min()), float(high[kept].max()))
