"""What a forward depends on besides its inputs, brought back for a second one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.anatomy import NORMS
from acclimate.core.normalization import NormalizationLayer

__all__ = ["Surroundings", "version"]


class Surroundings:
    """Taken before a forward of `modules`, closed after it; within `again()` they are what they were before it.

    Random numbers, autocast, and of normalisation layers what the forward is for. Statistics of norms, and other
    buffers that the forward changes, are brought back as copies, so that a second forward changes nothing. Weights and
    other buffers must be as they were: RuntimeError if one was changed in between. What else Python objects remember
    is not known here.
    """

    def __init__(self, modules: Iterable[nn.Module], device: torch.device) -> None:
        parts = list(dict.fromkeys(part for module in modules for part in module.modules()))
        self._cuda = [device] if device.type == "cuda" else []
        self._random = self._random_states()
        self._rerandomise = False
        self._autocast = [_autocast(kind) for kind in dict.fromkeys(("cpu", device.type))]
        self._layers = [
            (part, part.phase, part.groups, part.owner) for part in parts if isinstance(part, NormalizationLayer)
        ]
        self._buffers = [
            _Buffer(part, key, buffer) for part in parts for key, buffer in part.named_buffers(recurse=False)
        ]
        self._fixed = [(weight, version(weight)) for part in parts for weight in part.parameters(recurse=False)]

    def close(self) -> tuple[Tensor, ...]:
        """Keep what a second forward will need; gives the copies that are kept for it."""
        now = self._random_states()
        self._rerandomise = not all(torch.equal(a, b) for a, b in zip(self._random, now, strict=True))
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
            if self._rerandomise:
                stack.enter_context(torch.random.fork_rng(self._cuda))
                torch.set_rng_state(self._random[0])
                for device, state in zip(self._cuda, self._random[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
            for autocast in self._autocast:
                stack.enter_context(autocast())
            for buffer in self._buffers:
                stack.callback(buffer.put(buffer.before.clone()))
            for layer, phase, groups, owner in self._layers:
                stack.callback(_tell, layer, layer.phase, layer.groups, layer.owner)
                _tell(layer, phase, groups, owner)
            yield

    def _random_states(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._cuda)]


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


def _tell(layer: NormalizationLayer, phase: Any, groups: int, owner: str) -> None:
    layer.phase, layer.groups, layer.owner = phase, groups, owner


def _autocast(kind: str) -> Callable[[], torch.autocast]:
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    cached = torch.is_autocast_cache_enabled()
    return lambda: torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=cached)
