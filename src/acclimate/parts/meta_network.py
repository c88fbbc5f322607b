"""Small networks grown beside the frozen parts of a network: what EcoTTA learns."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.anatomy import blocks
from acclimate.core.state import State
from acclimate.parts.source_images import source_batches

__all__ = ["MetaNetwork", "deviation", "grow_meta_networks", "meta_networks", "partition", "take_after_source"]

_FLOOR = 0.1
"""Where the branch begins: above 0, because a rectifier passes no gradient at 0."""


def partition(count: int, parts: int) -> list[int]:
    """How many of `count` blocks go to each part.

    The four published partitions are two sizes, s and s + 2, the larger ones last, with the largest s that needs both;
    where no such s exists the blocks are spread evenly. No part is empty, so there may be fewer.

    >>> [partition(12, 4), partition(12, 5), partition(16, 4), partition(16, 5), partition(4, 2), partition(3, 2)]
    [[2, 2, 4, 4], [2, 2, 2, 2, 4], [3, 3, 5, 5], [2, 2, 4, 4, 4], [1, 3], [1, 2]]
    """
    parts = min(parts, count)
    for size in range(count // parts, 0, -1):
        larger, odd = divmod(count - parts * size, 2)
        if not odd and 0 < larger < parts:
            return [size] * (parts - larger) + [size + 2] * larger
    return [count // parts + (number >= parts - count % parts) for number in range(parts)]


class MetaNetwork(nn.Module):
    """Turns the output v of a part with input u into `w = BN(v) + ReLU(BN'(Conv3x3(u)))`.

    Both norms use the statistics of the batch and keep none. It stands in a model by two hooks, which are methods of
    its own, so that they go along with a deep copy of the model.
    """

    def __init__(self, inward: int, outward: int, generator: torch.Generator) -> None:
        super().__init__()
        noise = torch.randn(outward, inward, 3, 3, generator=generator)
        self.convolution = nn.Parameter(noise * math.sqrt(2 / (9 * inward)))
        self.scale = nn.Parameter(torch.ones(outward))
        self.shift = nn.Parameter(torch.full((outward,), -_FLOOR))
        self.branch_scale = nn.Parameter(torch.zeros(outward))
        self.branch_shift = nn.Parameter(torch.full((outward,), _FLOOR))
        self.apart = self.watched = False
        self.deviation: Tensor | None = None
        self.moments: list[Tensor] | None = None
        self._input: Tensor | None = None

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        if v.numel() == v.shape[1]:  # one value a channel has no statistics
            return v + 0 * self.shift.view(1, -1, 1, 1)
        branch = _by_batch(self.branch(u, v), self.branch_scale, self.branch_shift)
        return _by_batch(v, self.scale, self.shift).add_(branch.relu_())

    def branch(self, u: Tensor, v: Tensor) -> Tensor:
        """The convolution of u, strided to the size of v."""
        stride = [max(1, round(a / b)) for a, b in zip(u.shape[2:], v.shape[2:], strict=True)]
        return F.conv2d(u, self.convolution, stride=stride, padding=1)

    def begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before the first block of the part."""
        self._input = inputs[0].detach() if self.apart else inputs[0]
        return (self._input, *inputs[1:])

    def end(self, module: nn.Module, inputs: tuple[Any, ...], v: Any) -> Tensor | None:
        """After its last block."""
        u, self._input = self._input, None
        assert u is not None
        if self.moments is not None:
            self._measure(u, v)
            return None
        w = self(u, v)
        if self.watched:
            apart = (w - v.detach()).abs()
            total = apart.sum(dtype=torch.promote_types(w.dtype, torch.float32))
            self.deviation = total / w.numel()  # the gradient of a mean would not be in channels last
        return w

    def _measure(self, u: Tensor, v: Any) -> None:
        fits = isinstance(v, Tensor) and v.ndim == u.ndim == 4 and u.shape[1] == self.convolution.shape[1]
        if not fits or self.branch(u, v).shape != v.shape:
            shapes = [list(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in (u, v)]
            raise ValueError(
                f"a part of this network turns {shapes[0]} into {shapes[1]}, which a convolution of 3 x 3 from "
                f"{self.convolution.shape[1]} to {self.convolution.shape[0]} channels cannot follow. This is for "
                "residual networks of convolutions; choose another method."
            )
        wide = v if v.dtype == torch.float64 else v.float()
        assert self.moments is not None
        self.moments.append(torch.stack(torch.var_mean(wide, (0, 2, 3), correction=0)))

    @torch.no_grad()
    def take_after_source(self) -> None:
        """Begin with w = v, for batches with the moments of v that were measured, on average."""
        variance, mean = torch.stack(self.moments or []).mean(0)
        self.scale.copy_((variance + 1e-5).sqrt())
        self.shift.copy_(mean - self.branch_shift)


def _by_batch(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, scale, shift, training=True, momentum=0.0, eps=1e-5)


def grow_meta_networks(state: State, parts: int) -> None:
    """Cut the blocks of the model into parts and grow a meta network beside each. ValueError without blocks."""
    found = list(blocks(state.model).items())
    convolutions = {
        name: [(key, m) for key, m in block.named_modules(prefix=name) if isinstance(m, nn.Conv2d)]
        for name, block in found
    }
    state.require(bool(found) and all(convolutions.values()), "small networks beside residual blocks of convolutions")
    generator = torch.Generator().manual_seed(state.table.seed)
    start = 0
    for size in partition(len(found), parts):
        (first, opening), (last, closing) = found[start], found[start + size - 1]
        home, final = convolutions[last][-1]
        network = MetaNetwork(convolutions[first][0][1].in_channels, final.out_channels, generator)
        state.attach(home, "meta_network", network)  # in a leaf, for a container would run it
        opening.register_forward_pre_hook(network.begin)
        closing.register_forward_hook(network.end)
        start += size


def meta_networks(model: nn.Module) -> list[MetaNetwork]:
    """All of them, from the input on."""
    return [module for module in model.modules() if isinstance(module, MetaNetwork)]


@contextlib.contextmanager
def deviation(networks: Sequence[MetaNetwork], *, apart: bool) -> Generator[Callable[[], Tensor]]:
    """Gives a function: `sum_k mean |w_k - v_k|` of the last forward in this block, with v taken as constant.

    `apart`: each part gets its input as a constant too, so that no gradient leaves a part.
    """
    for network in networks:
        network.apart, network.watched = apart, True
    try:
        yield lambda: torch.stack([network.deviation for network in networks if network.deviation is not None]).sum()
    finally:
        for network in networks:
            network.apart = network.watched = False
            network.deviation = None


def take_after_source(state: State, source: Any, batch_size: int) -> int:
    """Let the grown model begin as the source, by the moments of its parts on it; returns how many batches it has."""
    networks, batches = meta_networks(state.model), 0
    try:
        for network in networks:
            network.moments = []
        for x, _ in source_batches(state, source, batch_size, labelled=True):
            with torch.no_grad():
                state.forward(x, answering=False)
            batches += 1
        for network in networks:
            network.take_after_source()
    finally:
        for network in networks:
            network.moments = None
    return batches
