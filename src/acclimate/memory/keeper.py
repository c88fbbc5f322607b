"""The engine: hooks that keep what backward needs the way a policy says, and count it."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from acclimate.compression import Bits, Codec, Exact, Packed
from acclimate.core.memory import Chooser, MemoryPolicy, Saved
from acclimate.memory.ledger import Ledger
from acclimate.memory.operations import Operation, Operations
from acclimate.memory.stock import as_it_is

if TYPE_CHECKING:
    from acclimate.core.state import State

__all__ = ["Keeper", "Kept"]

SMALL = 4096
"""Tensors of fewer values are kept as they are."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of one tensor: for reports.

    `dense` has the bytes of the storage it came from, which PyTorch would hold, `held` those of what is held in its
    place; both without what an earlier line stands for, so that neither sum counts anything twice.
    """

    operation: str
    layer: str
    role: str
    codec: str
    dense: int
    held: int


class Keeper:
    """Within `keeping(policy, ...)` every tensor that autograd saves is kept as the policy says.

    `held` counts what is really kept, `dense` what stock PyTorch would keep at the same moments; storages of the
    model's parameters and buffers and of declared state are in neither; `bound` is the most that `held` could be with
    the same settings of codecs whose size depends on the values. A tensor that several operations save is packed once.
    `order` has the weights of operations, in order of first use. An operation that is not known keeps its tensors as
    they are, and an in-place change of such a tensor makes backward fail, as it does without hooks. What a policy
    enters into `closing` ends with the block.
    """

    def __init__(self) -> None:
        self._told = False
        self.operations = Operations()
        self.closing = contextlib.ExitStack()
        self._open((), {})

    def __reduce__(self) -> tuple[type[Keeper], tuple[()]]:
        """A copy is a new one: references to storages are not to be copied."""
        return Keeper, ()

    def _open(self, owned: Iterable[Tensor], layers: dict[int, str]) -> None:
        storages = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in owned)}  # pyright: ignore[reportPrivateUsage]
        references = [StorageWeakRef(storage) for storage in storages.values()]
        self.held, self.dense, self.bound = (Ledger(references) for _ in range(3))
        self.lines: list[Kept] = []
        self.order: dict[str, None] = {}
        self.planned = self.opening = self.probed = 0
        self.details: dict[str, tuple[tuple[str, ...], Tensor]] = {}
        self.expected: dict[str, int] = {}
        self._inputs: dict[str, int] = {}
        self._choose: Chooser = as_it_is
        self._layers = layers
        self._shared: dict[tuple[Any, ...], dict[Codec, weakref.ref[_Entry]]] = {}

    @contextlib.contextmanager
    def keeping(self, policy: MemoryPolicy, state: State, x: Tensor) -> Generator[None]:
        """Open new books, let the policy look at the batch, and keep as it says until the block ends."""
        declared = [tensor for slot in state.table.slots.values() for tensor in (slot.tensor, slot.initial)]
        owned = (*state.model.parameters(), *state.model.buffers(), *declared)
        named = (*state.model.named_parameters(remove_duplicate=False), *state.weights.items())
        layers = {id(weight): name for name, weight in named}
        self._open((tensor for tensor in owned if isinstance(tensor, Tensor)), layers)
        try:
            with (
                torch.autograd.graph.saved_tensors_hooks(self.pack, _unpack),
                self.operations,
                contextlib.ExitStack() as self.closing,
            ):
                self._choose = policy.begin(state, x, self)
                self.lines.clear()
                self.details = dict(state.details)
                self.opening, self._inputs = self.held.mark(), {}
                yield
        finally:
            self._shared.clear()
            self._choose, self.operations.instead = as_it_is, Operation.compute

    @contextlib.contextmanager
    def choosing(self, choose: Chooser) -> Generator[dict[str, int]]:
        """Within this block keep as `choose` says; gives the sizes of the inputs of layers that learn, by weight."""
        before, self._choose, self._inputs = self._choose, choose, {}
        try:
            yield self._inputs
        finally:
            self._choose = before

    @property
    def times(self) -> float:
        """How many forwards of the whole batch the step made, as many as `planned` and `expected` are for one of."""
        return max((self._inputs.get(name, 0) / size for name, size in self.expected.items() if size), default=0.0)

    def pack(self, tensor: Tensor) -> _Entry:
        """What is held in the place of a tensor that autograd saves, and counted as long as it lives."""
        whole = tensor.untyped_storage()
        storage, size = StorageWeakRef(whole), whole.nbytes()
        saved = self._seen(tensor)
        codec = self._codec(saved, storage)
        key = (
            storage.cdata,
            tensor.storage_offset(),
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
            tensor._version,  # pyright: ignore[reportPrivateUsage]
        )
        alike = self._shared.setdefault(key, {})
        known = alike.get(codec)
        if known is not None and (entry := known()) is not None:
            return entry
        packed = codec.encode(tensor.detach())  # an output would hold its own graph
        ledgers = (self.dense, self.held)
        dense, whole_held = (0 if ledger.owns(storage) or ledger.holds(storage) else size for ledger in ledgers)
        held = whole_held if isinstance(codec, Exact) else packed.nbytes
        entry = _Entry(packed, tensor, storage, size, self)
        if isinstance(codec, Exact):  # what is there whole anyway is not kept in bits as well
            for other in [found for kind, known in alike.items() if isinstance(kind, Bits) and (found := known())]:
                held -= sum(kept for _, kept in other.by_value[:1])
                other.become(entry)
        alike[codec] = weakref.ref(entry)
        if not self.held.owns(storage) and max(tensor.numel(), dense // tensor.element_size()) >= SMALL:
            self.lines.append(Kept(saved.operation, saved.layer, saved.role, type(codec).__name__, dense, held))
        return entry

    def _seen(self, tensor: Tensor) -> Saved:
        operation = self.operations.current
        if operation is None:
            return Saved(tensor, "", "", "", "", {})
        saved = operation.saves(tensor, self._layers)
        used = (self._layers.get(id(saved.arguments.get(name)), "") for name in ("weight", "bias"))
        self.order |= dict.fromkeys(filter(None, used))
        if saved.role == "input" and saved.layer and saved.learns():
            self._inputs[saved.layer] = self._inputs.get(saved.layer, 0) + tensor.numel()
        return saved

    def _codec(self, saved: Saved, storage: StorageWeakRef) -> Codec:
        if self.held.owns(storage) or saved.tensor.numel() < SMALL or self.held.holds(storage):
            return Exact()
        if not saved.operation and not self._told:
            self._told = True
            warnings.warn(
                f"a tensor of {list(saved.tensor.shape)} is saved by an operation that is none of torch's functions (a "
                "custom autograd function, checkpointing, or compiled code). Such tensors are kept as they are, and "
                "what such an operation computes again in backward is not counted.",
                stacklevel=2,
            )
        return self._choose(saved)


class _Entry:
    """What autograd holds in the place of a tensor; several operations may hold the same."""

    __slots__ = ("__weakref__", "by_storage", "by_value", "packed", "storage")

    def __init__(self, packed: Packed, tensor: Tensor, storage: StorageWeakRef, dense: int, keeper: Keeper) -> None:
        self.packed, self.storage = packed, storage
        itself = isinstance(packed.codec, Exact)
        self.by_storage = [keeper.dense, keeper.held, keeper.bound] if itself else [keeper.dense]
        most = 0 if itself else max(packed.nbytes, packed.codec.size(tensor.shape, tensor.dtype))
        self.by_value = [] if itself else [(keeper.held, packed.nbytes), (keeper.bound, most)]
        for ledger in self.by_storage:
            ledger.add(storage, dense)
        for ledger, size in self.by_value:
            ledger.change(size)

    def become(self, other: _Entry) -> None:
        """Stand for the same tensor as another entry, which holds it whole."""
        for ledger in other.by_storage[1:]:
            ledger.add(self.storage, 0)
        for ledger, size in self.by_value:
            ledger.change(-size)
        self.packed, self.by_storage, self.by_value = other.packed, [*self.by_storage, *other.by_storage[1:]], []

    def __del__(self) -> None:
        for ledger in self.by_storage:
            ledger.remove(self.storage)
        for ledger, size in self.by_value:
            ledger.change(-size)


def _unpack(entry: _Entry) -> Tensor:
    return entry.packed.decode()
