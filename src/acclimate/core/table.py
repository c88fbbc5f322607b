"""The declared state: every mutable tensor of an adaptation stands in one table.

Reset, snapshot, rollback, saving, byte counts, device moves and merging replicas are written here once,
from what each row declares: its reset value, its merge rule and whether it is saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from acclimate.core import foreach
from acclimate.core.optimizers import TrackedOptimizer

__all__ = ["Kind", "Late", "Merge", "Slot", "Snapshot", "Table"]

Kind = Literal["weights", "statistics", "memory", "buffers", "optimizer", "counters", "guard"]
Merge = Literal["mean", "sum", "max", "first"]


@dataclass(slots=True)
class Slot:
    """One declared tensor. `initial` is its reset value: a tensor of the same shape, or a number to fill in.

    What is not `learned` watches the learning: like counters it goes on through restarts and through steps that learn
    nothing; a refused step undoes it. What is on the `host` stays on the CPU wherever the model goes.
    """

    tensor: Tensor
    initial: Tensor | float
    kind: Kind
    merge: Merge = "mean"
    persistent: bool = True
    learned: bool = True
    host: bool = False

    @property
    def bytes(self) -> int:
        return self.tensor.numel() * self.tensor.element_size()

    def put(self, value: Tensor | float) -> None:
        if isinstance(value, Tensor):
            self.tensor.copy_(value)
        else:
            self.tensor.fill_(value)


@dataclass(frozen=True, slots=True)
class Late:
    """A slot to come: a tensor whose shape only the stream tells. `length` is that of its first axis."""

    length: int
    kind: Kind
    merge: Merge
    host: bool = False


@dataclass(slots=True)
class Snapshot:
    """A copy of everything mutable at one instant; opaque to users, who pass it back to `restore`."""

    tensors: dict[str, Tensor]
    scalars: dict[str, Any]
    generators: dict[str, Tensor]


class Table:
    """Tensors, optimisers, private generators and counters of one adaptation, by name."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.slots: dict[str, Slot] = {}
        self.late: dict[str, Late] = {}
        self.counters: dict[str, int] = {}
        self._learned: set[str] = set()
        self.optimizers: dict[str, TrackedOptimizer] = {}
        self.generators: dict[str, torch.Generator] = {}

    def declare(
        self,
        name: str,
        tensor: Tensor,
        *,
        initial: Tensor | float,
        kind: Kind,
        merge: Merge = "mean",
        persistent: bool = True,
        learned: bool = True,
        host: bool = False,
    ) -> Tensor:
        """Put `tensor` under `name`; from then on it is changed in place only. Returns it."""
        if name in self.slots or "/" in name:
            raise ValueError(f"state {name!r}: a name is declared once and holds no slash. Choose another name.")
        self.slots[name] = Slot(tensor, initial, kind, merge, persistent, learned, host)
        return tensor

    def expect(
        self, name: str, *, length: int, kind: Kind = "memory", merge: Merge = "first", host: bool = False
    ) -> None:
        """Announce a tensor `[length, ...]` that `fulfil` will bring; until then, and after a reset, it is absent."""
        if name in self.slots or name in self.late or "/" in name:
            raise ValueError(f"state {name!r}: a name is declared once and holds no slash. Choose another name.")
        self.late[name] = Late(length, kind, merge, host)

    def fulfil(self, name: str, tensor: Tensor) -> Tensor:
        """Bring an announced tensor; from then on it is changed in place only."""
        late = self.late[name]
        if len(tensor) != late.length:
            raise ValueError(f"state {name!r} was announced with {late.length} rows, found {len(tensor)}.")
        self.slots[name] = Slot(tensor, 0.0, late.kind, late.merge, host=late.host)
        return tensor

    def count(self, name: str) -> None:
        """Declare a counter of what was learned: a restart sets it to 0, where others go on."""
        self.counters[name] = 0
        self._learned.add(name)

    def declare_optimizer(
        self, name: str, optimizer: Optimizer, weights: Mapping[str, nn.Parameter]
    ) -> TrackedOptimizer:
        """Track an optimiser over these named weights; what it keeps may appear later."""
        self.optimizers[name] = TrackedOptimizer(optimizer, weights)
        return self.optimizers[name]

    def generator(self, name: str) -> torch.Generator:
        """A private generator on the CPU, seeded from `seed` and its own name."""
        if name not in self.generators:
            self.generators[name] = torch.Generator().manual_seed(self._seed_of(name))
        return self.generators[name]

    def _seed_of(self, name: str) -> int:
        digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        return int.from_bytes(digest[:4], "big")  # torch's CPU generator takes 32 bits to heart

    def entries(self) -> Iterator[tuple[str, Slot]]:
        """Every tensor that exists now: declared ones, then what optimisers have created."""
        yield from self.slots.items()
        for prefix, tracked in self.optimizers.items():
            for path, tensor in tracked.tensors():
                scalar = tensor.ndim == 0 or path.startswith("group/")
                kind: Kind = "counters" if scalar else "optimizer"
                yield f"{prefix}/{path}", Slot(tensor, 0.0, kind, "max" if scalar else "mean")

    def scalars(self) -> dict[str, Any]:
        """Everything mutable that is no tensor: counters, and numbers that optimisers keep."""
        optimizers = {name: tracked.scalars() for name, tracked in self.optimizers.items()}
        return {"counters": dict(self.counters), "optimizers": optimizers}

    def bytes(self) -> dict[Kind, int]:
        """Bytes held, by kind."""
        total: dict[Kind, int] = {}
        for _, slot in self.entries():
            total[slot.kind] = total.get(slot.kind, 0) + slot.bytes
        return total

    @torch.no_grad()
    def snapshot(self, into: Snapshot | None = None) -> Snapshot:
        """Copy everything mutable, into the memory of an earlier snapshot if one is given."""
        taken = into or Snapshot({}, {}, {})
        live = {name: slot.tensor for name, slot in self.entries()}
        for name in taken.tensors.keys() - live.keys():
            del taken.tensors[name]
        same = [n for n, t in live.items() if n in taken.tensors and _alike(taken.tensors[n], t)]
        if same:
            foreach.copy([taken.tensors[n] for n in same], [live[n] for n in same])
        for name in live.keys() - set(same):
            taken.tensors[name] = live[name].detach().clone()
        taken.scalars = self.scalars()
        taken.generators = {name: generator.get_state() for name, generator in self.generators.items()}
        return taken

    @torch.no_grad()
    def restore(self, snapshot: Snapshot, *, learned_only: bool = False) -> None:
        """Put everything back to `snapshot`, in place, bit for bit; or only what is learned: not the generators."""
        self._drop(self.late.keys() - snapshot.tensors.keys())
        for name in self.late.keys() & snapshot.tensors.keys() - self.slots.keys():
            self.fulfil(name, snapshot.tensors[name].clone())
        for name, slot in self.slots.items():
            if slot.learned or not learned_only:
                slot.put(snapshot.tensors.get(name, slot.initial))
        for prefix, tracked in self.optimizers.items():
            head = f"{prefix}/"
            mine = {n.removeprefix(head): t for n, t in snapshot.tensors.items() if n.startswith(head)}
            tracked.restore(mine, snapshot.scalars["optimizers"][prefix])
        self.counters = dict(snapshot.scalars["counters"])
        if not learned_only:
            for name, generator in self.generators.items():
                if name in snapshot.generators:
                    generator.set_state(snapshot.generators[name])
                else:
                    generator.manual_seed(self._seed_of(name))

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self.slots.pop(name, None)

    @torch.no_grad()
    def restart(self) -> None:
        """Forget everything learned; generators and other counters go on. Costs O(adapted bytes)."""
        self._drop(self.late)
        for slot in self.slots.values():
            if slot.learned:
                slot.put(slot.initial)
        for tracked in self.optimizers.values():
            tracked.reset()
        self.counters |= dict.fromkeys(self._learned, 0)

    def reset(self) -> None:
        """Exactly the state of a freshly built adaptation: learned tensors, counters, generators."""
        self.restart()
        for slot in self.slots.values():
            if not slot.learned:
                slot.put(slot.initial)
        self.counters = dict.fromkeys(self.counters, 0)
        for name, generator in self.generators.items():
            generator.manual_seed(self._seed_of(name))

    @torch.no_grad()
    def merge(self, others: Sequence[Table]) -> None:
        """Merge replicas of the same adaptation into this one, each tensor by its declared rule.

        What only some replicas have (moments of an optimiser that has stepped) is merged among those.
        """
        replicas = [dict(table.entries()) for table in (self, *others)]
        merged: dict[str, Tensor] = {}
        for name in dict.fromkeys(name for replica in replicas for name in replica):
            slots = [replica[name] for replica in replicas if name in replica]
            merged[name] = _merged([slot.tensor for slot in slots], slots[0].merge)
        donor = max((self, *others), key=lambda table: len(dict(table.entries())))
        scalars = {**donor.scalars(), "counters": dict(self.counters)}
        self.restore(Snapshot(merged, scalars, {}), learned_only=True)

    def apply(self, move: Callable[[Tensor], Tensor]) -> None:
        """Move every tensor: the storage changes, the identity of the tensor does not."""
        for _, slot in self.entries():
            if not slot.host:
                slot.tensor.data = move(slot.tensor.data)
        for slot in self.slots.values():
            if isinstance(slot.initial, Tensor) and not slot.host:
                slot.initial = move(slot.initial)

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Persistent tensors (generator states among them) and scalars, as a state file holds them."""
        tensors = {name: slot.tensor.detach() for name, slot in self.entries() if slot.persistent}
        states = {f"generator/{name}": generator.get_state() for name, generator in self.generators.items()}
        return {**tensors, **states}, self.scalars()

    def adopt(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """The inverse of `export`. ValueError, before anything changes, if something does not fit."""
        wrong = list(self._garbled(scalars)) or [*self._misfits(tensors), *self._strangers(tensors)]
        for name, tracked in () if wrong else self.optimizers.items():
            mine = {n.removeprefix(f"{name}/"): t for n, t in tensors.items() if n.startswith(f"{name}/")}
            wrong += [f"{name}: {what}" for what in tracked.misfits(mine, scalars["optimizers"][name])]
        if wrong:
            raise ValueError(
                f"the saved state does not fit this model and method: {'; '.join(wrong[:5])}"
                f"{' ...' if len(wrong) > 5 else ''}. Load it with the model, method and normalization it was "
                "saved with, or restore the file from a copy."
            )
        states = {n.removeprefix("generator/"): t for n, t in tensors.items() if n.startswith("generator/")}
        for name in states:
            self.generator(name)
        self.restore(Snapshot(dict(tensors), dict(scalars), states))

    def _misfits(self, tensors: Mapping[str, Tensor]) -> Iterator[str]:
        for name, slot in self.slots.items():
            found = tensors.get(name)
            if found is None and slot.persistent:
                yield f"{name} is missing"
            elif found is not None and not _alike(found, slot.tensor, device=False):
                expected = f"{list(slot.tensor.shape)} {slot.tensor.dtype}"
                yield f"{name} is {list(found.shape)} {found.dtype}, expected {expected}"

    def _strangers(self, tensors: Mapping[str, Tensor]) -> Iterator[str]:
        state = torch.Generator().get_state()
        for name, tensor in tensors.items():
            owner = name.partition("/")[0]
            if owner == "generator" and name not in self.slots:
                if not _alike(tensor, state):
                    yield f"{name} is no generator state"
            elif name in self.late:
                if tensor.shape[:1] != (self.late[name].length,):
                    yield f"{name} is {list(tensor.shape)}, expected {self.late[name].length} rows"
            elif name not in self.slots and owner not in self.optimizers:
                yield f"{name} is not known here"

    def _garbled(self, scalars: Mapping[str, Any]) -> Iterator[str]:
        counters, optimizers = scalars.get("counters"), scalars.get("optimizers")
        if not isinstance(counters, dict) or counters.keys() != self.counters.keys():
            yield "its counters are garbled"
        elif not all(type(count) is int and count >= 0 for count in counters.values()):
            yield "a counter is no whole number of at least 0"
        if not isinstance(optimizers, dict) or optimizers.keys() != self.optimizers.keys():
            yield "its optimisers are others"


def _merged(tensors: Sequence[Tensor], rule: Merge) -> Tensor:
    if rule == "first" or len(tensors) == 1:
        return tensors[0].clone()
    stack = torch.stack([tensor.to(tensors[0].device) for tensor in tensors])
    if rule == "sum":
        return stack.sum(0)
    return stack.mean(0) if rule == "mean" and stack.is_floating_point() else stack.amax(0)


def _alike(a: Tensor, b: Tensor, *, device: bool = True) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and (not device or a.device == b.device)
