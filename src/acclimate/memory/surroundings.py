"""What a forward depends on besides its inputs, brought back for a second one."""

from __future__ import annotations

import contextlib
import functools
import random
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.anatomy import NORMS
from acclimate.core.normalization import NormalizationLayer

__all__ = ["Surroundings", "version"]


class Surroundings:
    """Taken before a forward of `modules`, closed after it; within `again()` they are what they were before it.

    The global random generators of torch, Python and NumPy (if it is imported), autocast, and of normalisation layers
    what the forward is for. Statistics of norms, and other buffers that the forward changes, are brought back as
    copies, so that a second forward changes nothing. Weights and other buffers must be as they were: RuntimeError if
    one was changed in between. What else Python objects remember, generators of their own among it, is not known here.
    """

    def __init__(self, modules: Iterable[nn.Module], device: torch.device) -> None:
        parts = list(dict.fromkeys(part for module in modules for part in module.modules()))
        self._randomness = [_Randomness(read, write) for read, write in _generators(device)]
        self._autocast = [_autocast(kind) for kind in dict.fromkeys(("cpu", device.type))]
        self._layers = [
            (part, part.phase, part.groups, part.owner, part.decisions)
            for part in parts
            if isinstance(part, NormalizationLayer)
        ]
        self._buffers = [
            _Buffer(part, key, buffer) for part in parts for key, buffer in part.named_buffers(recurse=False)
        ]
        self._fixed = [(weight, version(weight)) for part in parts for weight in part.parameters(recurse=False)]

    def close(self) -> tuple[Tensor, ...]:
        """Keep what a second forward will need; gives the copies that are kept for it."""
        self._randomness = [each for each in self._randomness if each.moved()]
        changing = [buffer for buffer in self._buffers if buffer.changes()]
        self._fixed += [(buffer.own, buffer.version) for buffer in self._buffers if buffer not in changing]
        self._buffers = changing
        return tuple(buffer.before for buffer in changing)

    @contextlib.contextmanager
    def again(self, what: str) -> Generator[None]:
        if any(version(tensor) != before for tensor, before in self._fixed):
            raise RuntimeError(
                f"a weight or buffer of {what} was changed between a forward and the backward through it, so that "
                "it cannot be run again. Go backward before the weights change, or choose memory='exact'."
            )
        with contextlib.ExitStack() as stack:
            for randomness in self._randomness:
                stack.callback(randomness.put())
            for autocast in self._autocast:
                stack.enter_context(autocast())
            for buffer in self._buffers:
                stack.callback(buffer.put(buffer.before.clone()))
            for layer, *told in self._layers:
                stack.callback(_tell, layer, layer.phase, layer.groups, layer.owner, layer.decisions)
                _tell(layer, *told)
            yield


class _Randomness:
    """One global generator, and what state it was in."""

    def __init__(self, read: Callable[[], Any], write: Callable[[Any], None]) -> None:
        self._read, self._write, self._before = read, write, read()

    def moved(self) -> bool:
        return not _same(self._before, self._read())

    def put(self) -> Callable[[], None]:
        """Bring the state back; gives what ends that."""
        now = self._read()
        self._write(self._before)
        return lambda: self._write(now)


class _Buffer:
    """One buffer of a module, and a copy of what it was."""

    def __init__(self, module: nn.Module, key: str, own: Tensor) -> None:
        self._module, self._key = module, key
        self.own, self.before, self.version = own, own.clone(), version(own)

    def changes(self) -> bool:
        """Whether the forward may have changed it; torch's batch norm does so without moving the version."""
        if isinstance(self._module, (NormalizationLayer, *NORMS)):
            return True
        return self._module.get_buffer(self._key) is not self.own or version(self.own) != self.version

    def put(self, tensor: Tensor) -> Callable[[], None]:
        """Let another tensor stand in its place; gives what ends that."""
        now = self._module.get_buffer(self._key)
        setattr(self._module, self._key, tensor)
        return lambda: setattr(self._module, self._key, now)


def version(tensor: Tensor) -> tuple[int, int]:
    """Which memory a tensor has, and how often it was changed in place."""
    return tensor.data_ptr(), tensor._version  # pyright: ignore[reportPrivateUsage]


def _generators(device: torch.device) -> list[tuple[Callable[[], Any], Callable[[Any], None]]]:
    """How to read and write the state of each global generator."""
    found: list[tuple[Callable[[], Any], Callable[[Any], None]]] = [
        (torch.get_rng_state, torch.set_rng_state),
        (random.getstate, random.setstate),
    ]
    if device.type == "cuda":
        found.append((functools.partial(torch.cuda.get_rng_state, device), _write_cuda(device)))
    if "numpy" in sys.modules:  # where nothing has imported it, nothing draws from it
        numbers: Any = sys.modules["numpy"].random
        found.append((functools.partial(numbers.get_state, legacy=False), numbers.set_state))
    return found


def _write_cuda(device: torch.device) -> Callable[[Tensor], None]:
    return lambda state: torch.cuda.set_rng_state(state, device)


def _same(one: Any, other: Any) -> bool:
    """Whether two states are equal: tensors, arrays and numbers, in tuples and mappings."""
    if isinstance(one, Mapping):
        return all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    equal = one == other  # of arrays an array
    return bool(equal if isinstance(equal, bool) else equal.all())


def _tell(layer: NormalizationLayer, phase: Any, groups: Any, owner: Any, decisions: Any) -> None:
    layer.phase, layer.groups, layer.owner, layer.decisions = phase, groups, owner, decisions


def _autocast(kind: str) -> Callable[[], torch.autocast]:
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    cached = torch.is_autocast_cache_enabled()
    return lambda: torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=cached)
