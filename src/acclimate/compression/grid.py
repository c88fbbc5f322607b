"""Which elements share a scale, and how to walk over them in pieces that stay in cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from acclimate.compression.layout import Layout
from acclimate.compression.packing import chunk_length

__all__ = ["SHARED", "Grid", "Piece", "Shared", "group_count"]

Shared = Literal["tensor", "channel", "row", "group", "block"]
SHARED = ("tensor", "channel", "row", "group", "block")

_FOLD = 512


@dataclass(frozen=True)
class Piece:
    """The elements `start:stop`, seen as `[outer, groups, inner]`, and the groups `first:last` they belong to."""

    start: int
    stop: int
    view: tuple[int, int, int]
    first: int
    last: int

    def of(self, flat: Tensor) -> Tensor:
        return flat[self.start : self.stop].view(self.view)

    def groups(self, values: Tensor) -> Tensor:
        """The numbers of the groups of this piece, to broadcast over it: `[groups, 1]`."""
        return values[self.first : self.last, None]


@dataclass(frozen=True)
class Grid:
    """A flat tensor seen as `[outer, groups, inner]`, one scale for each group; blocks may end with a shorter one.

    `order` is the order of axes in which the tensor is flattened: the physical one wherever groups allow it.
    """

    outer: int
    groups: int
    inner: int
    numel: int
    order: tuple[int, ...]

    @classmethod
    def over(cls, layout: Layout, per: Shared, parameter: int) -> Grid:
        """The grid of a layout. `parameter` means what it means to `group_count`."""
        shape, numel, order = layout.shape, layout.numel, layout.order
        if per == "block":
            return cls(1, -(-numel // parameter), parameter, numel, order)
        if per == "group" and len(shape) > 1:
            groups = group_count(shape, per, parameter)
            return cls(1, groups, numel // max(groups, 1), numel, tuple(range(len(shape))))
        kept = _kept(len(shape), per, parameter)
        own = [axis in kept for axis in order if shape[axis] != 1]
        first = own.index(True) if True in own else 0
        last = len(own) - own[::-1].index(True) if True in own else 0
        if not all(own[first:last]):
            order = (*(a for a in range(len(shape)) if a in kept), *(a for a in range(len(shape)) if a not in kept))
            first, last = 0, sum(own)
        sizes = [shape[axis] for axis in order if shape[axis] != 1]
        return cls(math.prod(sizes[:first]), math.prod(sizes[first:last]), math.prod(sizes[last:]), numel, order)

    def flat(self, tensor: Tensor, layout: Layout) -> Tensor:
        """The elements in the order of the grid: a view, or a copy where the groups lie scattered in memory."""
        return layout.flat(tensor) if self.order == layout.order else tensor.permute(self.order).reshape(-1)

    def shaped(self, flat: Tensor, layout: Layout) -> Tensor:
        """The tensor of a layout from its elements in the order of the grid."""
        if self.order == layout.order:
            return layout.shaped(flat)
        tensor = layout.shaped(layout.empty())
        sizes = [layout.shape[axis] for axis in self.order]
        tensor.permute(self.order).copy_(flat.view(sizes))
        return tensor

    def pieces(self, device: torch.device) -> Iterator[Piece]:
        """All elements once, in order."""
        limit, rows = chunk_length(device), self.groups * self.inner
        whole = self.groups if rows * self.outer == self.numel else self.groups - 1
        if 0 < rows <= limit and whole == self.groups:
            step = limit // rows
            if rows < _FOLD and step > _FOLD // rows:
                step -= step % (_FOLD // rows)
            for first in range(0, self.outer, step):
                last = min(first + step, self.outer)
                yield Piece(first * rows, last * rows, (last - first, self.groups, self.inner), 0, self.groups)
            return
        for start in range(0, self.numel, rows or 1):
            yield from self._rows(start, whole, min(limit, limit // max(self.inner, 1) or 1), limit)
        if whole < self.groups:
            start = whole * self.inner
            yield from _row(start, self.numel, whole, limit)

    def _rows(self, start: int, whole: int, step: int, limit: int) -> Iterator[Piece]:
        for group in range(0, whole, step):
            last = min(group + step, whole)
            begin, end = start + group * self.inner, start + last * self.inner
            if self.inner <= limit:
                yield Piece(begin, end, (1, last - group, self.inner), group, last)
            else:
                yield from _row(begin, end, group, limit)

    def sums(self, flat: Tensor, of: Callable[[Piece], Tensor]) -> Tensor:
        """Sum over each group of what `of` makes of its piece, a tensor of the piece's view: float64 `[groups]`."""
        total = torch.zeros(self.groups, dtype=torch.float64, device=flat.device)
        for piece in self.pieces(flat.device):
            total[piece.first : piece.last] += _reduce(of(piece), torch.sum)
        return total

    def extremes(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest element of each group: float32 `[groups]` twice; zero where there is none.

        Not finite where an element of the group is not, or does not fit float32.
        """
        if not flat.numel():
            return torch.zeros(self.groups, device=flat.device), torch.zeros(self.groups, device=flat.device)
        low = torch.full((self.groups,), float("inf"), device=flat.device)
        high = torch.full((self.groups,), -float("inf"), device=flat.device)
        for piece in self.pieces(flat.device):
            view = piece.of(flat)
            for limits, reduce, better in ((low, torch.amin, torch.minimum), (high, torch.amax, torch.maximum)):
                place = limits[piece.first : piece.last]
                better(place, _reduce(view, reduce).float(), out=place)
        return low, high

    @property
    def members(self) -> int:
        """Elements of one group; of every but perhaps the last block."""
        return self.outer * self.inner


def group_count(shape: Sequence[int], per: Shared, parameter: int) -> int:
    """How many scales a tensor of this shape has.

    `parameter` is the axis of channels, the number of last axes that make a row, the number of groups that the
    channels of one sample are normalised in, or the elements of a block. A tensor without the axes meant has one.
    """
    if per == "block":
        return -(-math.prod(shape) // parameter)
    if per == "group" and len(shape) > 1:
        if shape[1] % parameter:
            raise ValueError(f"{shape[1]} channels do not divide into {parameter} groups. Choose groups as the norm.")
        return shape[0] * parameter
    return math.prod(shape[axis] for axis in _kept(len(shape), per, parameter))


def _kept(axes: int, per: Shared, parameter: int) -> set[int]:
    if per == "channel":
        return {parameter} if parameter < axes else set()
    return set(range(axes - parameter)) if per == "row" else set()


def _row(start: int, stop: int, group: int, limit: int) -> Iterator[Piece]:
    for begin in range(start, stop, limit):
        end = min(begin + limit, stop)
        yield Piece(begin, end, (1, 1, end - begin), group, group + 1)


def _reduce(view: Tensor, by: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Over the first and the last axis: `[outer, groups, inner] -> [groups]`.

    Outer first, and several outer rows side by side where rows are short, because short rows do not vectorise.
    """
    outer, groups, inner = view.shape
    if outer > 1:
        fold = _FOLD // (groups * inner)
        if fold > 1 and outer % fold == 0:
            view = by(view.reshape(outer // fold, fold * groups * inner), 0).view(fold, groups * inner)
            outer = fold
        view = by(view.reshape(outer, groups * inner), 0)
    return by(view.reshape(groups, inner), 1)
