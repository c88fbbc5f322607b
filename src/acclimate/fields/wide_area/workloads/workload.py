"""A task: data, a model, and when it is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from acclimate.core.config import one_of, whole

__all__ = ["SHARDS", "Workload", "shards"]

SHARDS = ("iid", "sorted")


def _sgd(parameters: list[Tensor], rate: float) -> Optimizer:
    return torch.optim.SGD(parameters, rate)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Workload:
    """Arguments: `name`; `count`, examples to learn from; `keys`, int64 `[count]`, what label-sorted shards are sorted
    by; `build`, a fresh model of a seed; `loss`, the mean loss of examples at these places; `score`, on held-out
    examples, higher is better; `target`, the score at which it counts as learned; `batch_size`, of one worker; `base`,
    the optimiser that suits it, from parameters and step size."""

    name: str
    count: int
    keys: Tensor
    build: Callable[[int], nn.Module]
    loss: Callable[[nn.Module, Tensor], Tensor]
    score: Callable[[nn.Module], float]
    target: float
    batch_size: int
    base: Callable[[list[Tensor], float], Optimizer] = _sgd

    def batches(self, worker: int, workers: int, kind: str, seed: int) -> Callable[[], Tensor]:
        """Gives the places of a worker's next batch: passes over its shard, each in a new order."""
        mine = shards(self.keys, workers, kind, seed)[worker]
        generator = Generator().manual_seed(seed * 1009 + worker)
        left = [torch.empty(0, dtype=torch.int64)]

        def draw() -> Tensor:
            if len(left[0]) < self.batch_size:
                left[0] = mine[torch.randperm(len(mine), generator=generator)]
            batch, left[0] = left[0][: self.batch_size], left[0][self.batch_size :]
            return batch

        return draw


def shards(keys: Tensor, workers: int, kind: str = "iid", seed: int = 0) -> list[Tensor]:
    """The places of each worker's examples: all of them once, in equal parts but for a rest of less than `workers`.

    Arguments: `keys`, int64 `[N]`; `kind`, "iid", drawn at random, or "sorted", by keys, so that a worker sees few.

    Raises ValueError for another kind, no workers, or fewer examples than workers.
    """
    one_of(*SHARDS, kind=kind)
    whole(1, workers=workers)
    if len(keys) < workers:
        raise ValueError(f"there are {len(keys)} examples for {workers} workers; expected one or more for each.")
    if kind == "sorted":
        order = keys.argsort(stable=True)
    else:
        order = torch.randperm(len(keys), generator=Generator().manual_seed(seed))
    size = len(keys) // workers
    return list(order[: size * workers].split(size))
