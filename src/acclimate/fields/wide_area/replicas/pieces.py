"""Parameters whose gradients travel together, whatever buckets they lie in at the moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.futures import Future

__all__ = ["Bucket", "Piece", "regrouped"]


class Piece:
    """Some parameters of a model, in an order.

    Arguments:
        places: of the parameters within the model's.
        parameters: themselves; of one type on one device.

    Attributes:
        places: as given.
        count: numbers in all of them.

    >>> Piece([1], [torch.zeros(2, 3)]).count
    6
    """

    def __init__(self, places: Sequence[int], parameters: Sequence[Tensor]) -> None:
        self.places, self._parameters = list(places), list(parameters)
        self._counts = [each.numel() for each in self._parameters]
        self.count = sum(self._counts)

    def zeros(self) -> Tensor:
        """A flat gradient of nought, `[count]`."""
        first = self._parameters[0]
        return torch.zeros(self.count, dtype=first.dtype, device=first.device)

    def split(self, gradient: Tensor) -> dict[int, Tensor]:
        """The part of each parameter, by its place, of a flat gradient `[count]`."""
        return dict(zip(self.places, gradient.split(self._counts), strict=True))

    def assign(self, gradient: Tensor) -> None:
        """Make a flat gradient those of the parameters, which lie in it by their own strides."""
        for parameter, part in zip(self._parameters, gradient.split(self._counts), strict=True):
            parameter.grad = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset()).clone()


@dataclass(frozen=True, eq=False, slots=True)
class Bucket:
    """One of DDP's in this iteration: its parameters, their gradients, and what DDP waits for."""

    piece: Piece
    buffer: Tensor
    future: Future[Tensor]


def regrouped(given: Sequence[tuple[Piece, Tensor]], wanted: Sequence[Piece]) -> Iterator[Tensor]:
    """The same gradients, cut into other pieces; those of equal pieces are handed on as they are.

    Arguments:
        given: pieces and their flat gradients.
        wanted: pieces of no other parameters.

    >>> x, y = torch.zeros(1), torch.zeros(2)
    >>> flat = torch.tensor([1.0, 2.0, 3.0])
    >>> [each.tolist() for each in regrouped([(Piece([1, 0], [y, x]), flat)], [Piece([0], [x]), Piece([1], [y])])]
    [[3.0], [1.0, 2.0]]
    """
    whole = {tuple(piece.places): gradient for piece, gradient in given}
    parts: dict[int, Tensor] = {}
    for piece in wanted:
        same = whole.get(tuple(piece.places))
        if same is not None:
            yield same
            continue
        if not parts:
            parts = {place: part for each, gradient in given for place, part in each.split(gradient).items()}
        yield torch.cat([parts[place] for place in piece.places])
