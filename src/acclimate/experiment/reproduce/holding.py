"""What the steps of a trial hold: measured where a segment starts, and counted as the paper counts."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from acclimate import Adapted
from acclimate.core.meter import Memory
from acclimate.memory import Stock, SurgeonSavings
from acclimate.memory.device import profiled

__all__ = ["Holding", "input_sizes", "published_cache"]

_COUNTED = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


@torch.no_grad()
def input_sizes(model: nn.Module, images: Tensor) -> dict[str, int]:
    """Elements of the input of each convolution, batch norm and linear layer on these images, by its weight's name."""
    model, sizes = copy.deepcopy(model).eval(), dict[str, int]()

    def watch(name: str, module: nn.Module) -> None:
        def look(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            sizes[name] = sizes.get(name, 0) + given[0].numel()

        module.register_forward_pre_hook(look)

    for name, module in model.named_modules():
        if isinstance(module, _COUNTED):
            watch(f"{name}.weight", module)
    model(images)
    return sizes


def published_cache(sizes: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """The cache as SURGEON's tables have it, in MiB: `4 / 2^20 sum_i k_i m_i` over the inputs of layers that learn.

    `m_i` are the sizes, `k_i` the shares; what has no share does not learn. Indices, outputs of ReLUs, the loss and
    the probe are not in it.
    """
    return 4 / 2**20 * sum(size * shares.get(name, 0.0) for name, size in sizes.items())


class Holding:
    """Looks at a trial's steps where segments start. What is measured is undone: no answer changes by it."""

    def __init__(self, adapted: Adapted, model: nn.Module) -> None:
        self._adapted, self._model = adapted, model
        self._shape: torch.Size | None = None
        self._sizes: dict[str, int] = {}
        self._measured: list[Memory] = []
        self._caches: list[float | None] = []

    def before(self, images: Tensor) -> None:
        """Measure what a step on these images holds, before it is taken; the first time the allocator's peak too."""
        with contextlib.nullcontext() if self._measured else profiled():
            self._measured.append(self._adapted.memory(images))
        if images.shape != self._shape:
            self._shape, self._sizes = images.shape, input_sizes(self._model, images)

    def after(self) -> None:
        """Count as the paper does what the last step kept."""
        self._caches.append(self._cache())

    def _cache(self) -> float | None:
        policy, weights, last = self._adapted.method.memory, self._adapted.state.weights, self._adapted.last
        if isinstance(policy, SurgeonSavings) and policy.share is None:
            shares = {} if last is None else last.detail("share")
        elif isinstance(policy, SurgeonSavings):
            shares = dict.fromkeys(weights, policy.share or 0.0)
        elif isinstance(policy, Stock):
            shares = dict.fromkeys(weights, 1.0)
        else:
            return None
        branches = 1 + (getattr(self._adapted.method, "consistency", 0) > 0)
        return branches * published_cache(self._sizes, shares) if shares else None

    def facts(self) -> dict[str, Any]:
        """One number for each segment: bytes held, bytes PyTorch would hold, the device's peak, the paper's count."""
        return {
            "held": [memory.saved for memory in self._measured],
            "stock": [memory.stock for memory in self._measured],
            "device": [memory.device for memory in self._measured],
            "cache": self._caches,
        }
