"""One state in one piece of memory: what a published version is made of."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from acclimate.core import foreach
from acclimate.core.table import Snapshot, Table

__all__ = ["Packed"]

_ALIGNED = 16
_GENERATOR = "generator/"

_Entry = tuple[str, torch.dtype, tuple[int, ...], int]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each tensor lies; versions that hold the same tensors share one."""

    places: tuple[tuple[_Entry, int], ...]
    size: int

    def views(self, data: Tensor) -> dict[str, Tensor]:
        return {
            name: data[start : start + size].view(dtype).view(shape)
            for (name, dtype, shape, size), start in self.places
        }


@lru_cache(maxsize=1024)
def _layout(entries: tuple[_Entry, ...]) -> _Layout:
    places, end = list[tuple[_Entry, int]](), 0
    for entry in entries:
        places.append((entry, end))
        end += -(-entry[3] // _ALIGNED) * _ALIGNED
    return _Layout(tuple(places), end)


@lru_cache(maxsize=1024)
def _head(layout: _Layout) -> bytes:
    return json.dumps([[name, str(dtype)[6:], shape, size] for (name, dtype, shape, size), _ in layout.places]).encode()


@lru_cache(maxsize=1024)
def _entries(head: bytes) -> tuple[_Entry, ...]:
    return tuple((name, getattr(torch, dtype), tuple(shape), size) for name, dtype, shape, size in json.loads(head))


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Everything mutable of an adaptation, copied once and never written again.

    A small state is a hundred tensors; each by itself would weigh more in objects than in numbers.
    """

    layout: _Layout
    data: Tensor
    scalars: bytes

    @classmethod
    @torch.no_grad()
    def of(cls, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> Packed:
        """Copy an exported state: tensors, generator states among them, and numbers, in the order of their names."""
        named = sorted(tensors.items())
        entries = tuple((name, t.dtype, tuple(t.shape), t.numel() * t.element_size()) for name, t in named)
        layout = _layout(entries)
        data = torch.zeros(layout.size, dtype=torch.uint8)
        if named:
            foreach.copy(list(layout.views(data).values()), [tensor for _, tensor in named])
        return cls(layout, data, json.dumps(scalars, sort_keys=True).encode())

    @classmethod
    def of_table(cls, table: Table) -> Packed:
        """Copy a table's state, what is not persistent included."""
        tensors = {name: slot.tensor.detach() for name, slot in table.entries()}
        states = {f"{_GENERATOR}{name}": generator.get_state() for name, generator in table.generators.items()}
        return cls.of({**tensors, **states}, table.scalars())

    def tensors(self) -> dict[str, Tensor]:
        """Views of its tensors, by name, generator states among them. They are not to be written."""
        return self.layout.views(self.data)

    def numbers(self) -> dict[str, Any]:
        """Everything that is no tensor: counters, and numbers that optimisers keep."""
        return json.loads(self.scalars)

    def snapshot(self) -> Snapshot:
        """As `Table.restore` takes it."""
        views = self.tensors()
        # torch reads a generator's state from the beginning of its storage, wherever a view begins
        drawn = {name: views.pop(name).clone() for name in list(views) if name.startswith(_GENERATOR)}
        states = {name.removeprefix(_GENERATOR): state for name, state in drawn.items()}
        return Snapshot(views, self.numbers(), states)

    def same(self, other: Packed) -> bool:
        """Whether both are equal, bit for bit."""
        alike = self.layout is other.layout or self.layout == other.layout
        return alike and self.scalars == other.scalars and torch.equal(self.data, other.data)

    def dump(self) -> bytes:
        """As bytes, for `load` of another process."""
        head, scalars = _head(self.layout), self.scalars
        lengths = struct.pack("<QQ", len(head), len(scalars))
        return b"".join((lengths, head, scalars, self.data.numpy().data))

    @classmethod
    def load(cls, raw: bytes) -> Packed:
        """From the bytes of `dump`, which must come from this library."""
        first, second = struct.unpack_from("<QQ", raw)
        start = 16 + first
        entries = _entries(raw[16:start])
        data = torch.frombuffer(bytearray(raw[start + second :]), dtype=torch.uint8)
        return cls(_layout(entries), data, raw[start : start + second])

    @property
    def bytes(self) -> int:
        """Of memory that it takes, without the layout."""
        return self.data.numel() + len(self.scalars)

    def digest(self) -> str:
        """SHA-256 of names, types, shapes, bytes and numbers. Costs a pass over the state."""
        digest = hashlib.sha256(self.scalars)
        for (name, dtype, shape, _), _ in self.layout.places:
            digest.update(f"{name} {dtype} {shape}\n".encode())
        digest.update(self.data.numpy().data)
        return digest.hexdigest()
