"""What the memory tests stand on: gradients under a policy and without one, and books of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.core.memory import MemoryPolicy, policies
from acclimate.core.state import State
from acclimate.memory.keeper import Keeper

__all__ = ["Ours", "gradients", "kept", "seeded"]


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


@contextlib.contextmanager
def kept(model: nn.Module, policy: str | MemoryPolicy, x: Tensor) -> Iterator[Keeper]:
    """Within this block what autograd saves is kept by the policy."""
    keeper, state = Keeper(), State(model)
    state.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    with keeper.keeping(policies.build(policy), state, x):
        yield keeper


def gradients(
    model: nn.Module, x: Tensor, policy: str | MemoryPolicy | None, run: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Of a curved loss: by weight that learns and for the input; None for autograd without any hook."""
    x = x.clone(memory_format=torch.preserve_format)
    if x.is_floating_point():
        x.requires_grad_()
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    weights = [dict(model.named_parameters())[name] for name in names]
    with contextlib.nullcontext() if policy is None else kept(model, policy, x), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        answer = (run or model)(x)
        loss = (answer.float() * torch.linspace(-1, 2, answer.numel()).view(answer.shape)).sum()
        found = torch.autograd.grad(loss, [*weights, *([x] if x.is_floating_point() else [])], allow_unused=True)
    zeros = [torch.zeros(()) if gradient is None else gradient for gradient in found]
    return dict(zip([*names, *(["input"] if x.is_floating_point() else [])], zeros, strict=True))


class Ours:
    """What autograd holds, by hooks of our own that hold it too: distinct storages, parameters and buffers left out."""

    def __init__(self, model: nn.Module) -> None:
        self.owned = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        self.sizes: dict[int, int] = {}
        self.alive: list[Any] = []

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.owned:
            self.sizes[storage.data_ptr()] = storage.nbytes()
            self.alive.append(tensor)
        return tensor

    def __enter__(self) -> Ours:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())
