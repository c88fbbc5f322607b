"""Parts of a model that keep only their inputs for backward, and run again when it comes to them."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from acclimate.core.output import replace_tensors
from acclimate.memory.keeper import Keeper, Kept
from acclimate.memory.ledger import Ledger
from acclimate.memory.surroundings import Surroundings, version

__all__ = ["Unit"]


@dataclass(frozen=True)
class Unit:
    """What runs again as one: `compute`, a function of the modules `modules`; `name` says where it is."""

    name: str
    modules: Sequence[nn.Module]
    compute: Callable[..., Any]

    def run(self, keeper: Keeper, *args: Any, **kwargs: Any) -> Any:
        """The same answer with the same graph; `keeper` counts what is kept for it."""
        if not torch.is_grad_enabled():
            return self.compute(*args, **kwargs)
        forward = _Forward(self, keeper, args, kwargs)
        with torch.autograd.graph.saved_tensors_hooks(forward.leave, _Place.take):
            answer = self.compute(*args, **kwargs)
        forward.close()
        return answer


class _Forward:
    """One forward of a unit: what it began with, and a place for each tensor that backward will ask for."""

    def __init__(self, unit: Unit, keeper: Keeper, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.unit, self._keeper, self._given = unit, keeper, (args, kwargs)
        inputs = _tensors(self._given)
        weights = (weight for module in unit.modules for weight in module.parameters())
        self._versions = [version(tensor) for tensor in inputs]
        self._surroundings = Surroundings(unit.modules, next((each.device for each in (*inputs, *weights)), _CPU))
        self._places: list[weakref.ref[_Place]] = []
        self._held: list[_Counted] = []
        self._dense = keeper.dense.now

    def leave(self, tensor: Tensor) -> _Place:
        """Nothing of a tensor but its place among those of this forward."""
        place = _Place(self, tensor, self._keeper.dense)
        self._places.append(weakref.ref(place))
        return place

    def close(self) -> None:
        """Hold the inputs, without their graph, if backward will come."""
        if not self._places:
            return
        keeper, name = self._keeper, self.unit.name
        self._check("changes its input in place")
        before = keeper.held.now
        kept = (*_tensors(self._given), *self._surroundings.close())
        self._held = [_Counted(tensor, [keeper.held, keeper.bound]) for tensor in kept]
        self._given = replace_tensors(self._given, _leaf)
        size = keeper.held.now - before
        keeper.lines += [
            Kept("block", name, "input", "Exact", 0, size),
            Kept("block", name, "inside", "Rerun", keeper.dense.now - self._dense, 0),
        ]

    def again(self) -> None:
        """Run once more, and fill the places that backward has not passed yet; there it ends."""
        self._check("or what follows changes its input in place")
        places = [place() for place in self._places]
        last = max(number for number, place in enumerate(places) if place is not None)
        numbers = itertools.count()

        def fill(tensor: Tensor) -> None:
            number = next(numbers)
            place = places[number]
            if place is not None:
                place.fill(self._keeper.pack(tensor), tensor)
            if number == last:
                raise _Enough

        args, kwargs = replace_tensors(self._given, _leaf)
        with (
            _aside(self._keeper),
            self._surroundings.again(self.unit.name),
            contextlib.suppress(_Enough),
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(fill, _never),
            self._keeper.operations,  # backward is one of torch's functions, within which others are not looked at
        ):
            self.unit.compute(*args, **kwargs)

    def _check(self, what: str) -> None:
        if [version(tensor) for tensor in _tensors(self._given)] != self._versions:
            raise RuntimeError(
                f"{self.unit.name} {what}, so that it cannot be run again from it. Write that operation out of "
                "place, or choose memory='exact'."
            )


class _Place:
    """What autograd holds in the place of a tensor: which forward it was in."""

    __slots__ = ("__weakref__", "_counted", "_entry", "_forward", "_like")

    def __init__(self, forward: _Forward, tensor: Tensor, dense: Ledger) -> None:
        self._forward, self._like = forward, (tensor.shape, tensor.dtype)
        self._counted = _Counted(tensor, [dense])
        self._entry: Any = None

    def fill(self, entry: Any, tensor: Tensor) -> None:
        if (tensor.shape, tensor.dtype) == self._like:
            self._entry = entry

    def take(self) -> Tensor:
        """The tensor, computed again with all others of its forward unless it was with another one."""
        if self._entry is None:
            self._forward.again()
        entry, self._entry = self._entry, None
        if entry is None:
            raise RuntimeError(
                f"{self._forward.unit.name} computes something else when it is run again. Choose memory='exact' for a "
                "model whose blocks depend on more than their inputs, weights, buffers and global random numbers."
            )
        return entry.packed.decode()


class _Counted:
    """A storage in some ledgers, as long as this lives."""

    __slots__ = ("_ledgers", "_storage")

    def __init__(self, tensor: Tensor, ledgers: Sequence[Ledger]) -> None:
        storage = tensor.untyped_storage()
        self._storage, self._ledgers = StorageWeakRef(storage), ledgers
        for ledger in ledgers:
            ledger.add(self._storage, storage.nbytes())

    def __del__(self) -> None:
        for ledger in self._ledgers:
            ledger.remove(self._storage)


class _Enough(Exception):
    """All that was asked for is there."""


_CPU = torch.device("cpu")


@contextlib.contextmanager
def _aside(keeper: Keeper) -> Generator[None]:
    """Within this block only what is held counts: PyTorch would not compute this, and reports have it already."""
    before = keeper.lines, keeper.dense
    keeper.lines, keeper.dense = [], Ledger()
    try:
        yield
    finally:
        keeper.lines, keeper.dense = before


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    replace_tensors(value, found.append)
    return found


def _leaf(tensor: Tensor) -> Tensor:
    """The same values for a graph of its own."""
    return tensor if isinstance(tensor, nn.Parameter) else tensor.detach().requires_grad_(tensor.requires_grad)


def _never(packed: None) -> Tensor:
    raise AssertionError("no backward goes through the second forward")
