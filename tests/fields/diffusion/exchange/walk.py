"""Queries, keys and values that change slowly from step to step, drawn for each layer and branch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from acclimate.fields.diffusion.exchange.exchange import Exchange
from acclimate.fields.diffusion.exchange.shards import cut
from acclimate.fields.diffusion.residual.books import Key

B, N, H, D = 2, 24, 12, 8
LAYERS = 2

Packets = dict[str, str]


def tensors(step: int, layer: int, branch: int = 0, image: int = 0) -> list[Tensor]:
    """Query, key and value of the whole sequence `[B, N, H, D]`, float32."""
    start = np.random.default_rng([1, layer, branch, image]).standard_normal((3, B, N, H, D))
    other = np.random.default_rng([2, layer, branch, image]).standard_normal((3, B, N, H, D))
    mixed = np.cos(0.15 * step) * start + np.sin(0.15 * step) * other
    return [torch.from_numpy(each).float() for each in mixed]


def walk(
    exchange: Exchange,
    steps: int,
    *,
    shard: tuple[int, int] | None = None,
    branches: Sequence[int] = (0,),
    image: int = 0,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """What every layer of every evaluation gets, of the whole sequence or of the shard of (rank, size)."""
    outputs: list[Tensor] = []
    for step in range(steps):
        for branch in branches:
            with exchange.evaluation(branch):
                for layer in range(LAYERS):
                    given = [each.to(dtype) for each in tensors(step, layer, branch, image)]
                    if shard is not None:
                        given = [cut(each, shard[1])[shard[0]] for each in given]
                    outputs.append(exchange.attend(*given, layer=layer))
    return outputs


class Seen:
    """The digest of every packet, by key and step."""

    def __init__(self) -> None:
        self.packets: Packets = {}

    def __call__(self, key: Key, step: int, packet: Tensor) -> None:
        name = f"{tuple(key)} {step}"
        assert name not in self.packets
        self.packets[name] = hashlib.sha256(packet.numpy().tobytes()).hexdigest()


def digest(outputs: Sequence[Tensor]) -> list[str]:
    """Of each output, exactly."""
    return [hashlib.sha256(each.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest() for each in outputs]
