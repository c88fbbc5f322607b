"""Workers that take turns on noisy quadratics, and the algorithm of section 2.5 written out with numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.fields.wide_area.wire.entries import Entries
from acclimate.links.traces import constant
from acclimate.wire.simulated import SimulatedTransport, world

Plan = Callable[[int], Setting]
Base = Callable[[list[torch.Tensor]], torch.optim.Optimizer]

D = 40
START = np.random.default_rng(99).standard_normal(D)
CURVATURE = np.linspace(0.2, 1.0, D)
EXACT = Entries(values="same")


def gradient(rank: int, step: int, x: np.ndarray) -> np.ndarray:
    """Of `h (x - c_i)^2 / 2`, plus noise drawn for this rank and step."""
    centre = np.random.default_rng([5, rank]).standard_normal(x.size)
    noise = np.random.default_rng([7, rank, step]).standard_normal(x.size)
    return np.resize(CURVATURE, x.size) * (x - centre) + 0.3 * noise


def sgd(params: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.05)


def momentum(params: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.05, momentum=0.5, weight_decay=0.01)


def adam(params: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=0.02)


def build(n: int, base: Base = sgd, links: Any = None, **given: Any) -> list[tuple[DeCoSGD, torch.nn.Parameter]]:
    """One optimiser and its single parameter for each worker."""
    workers = []
    for transport in world(n, links or [(constant(1e6), 0.1)]):
        x = torch.nn.Parameter(torch.from_numpy(START + transport.rank))  # rank 0's are to be shared
        workers.append((DeCoSGD([x], base, transport=transport, **{"entries": EXACT, **given}), x))
    return workers


def turn(workers: list[tuple[DeCoSGD, torch.nn.Parameter]], compute: float | list[float] = 0.05) -> None:
    """One iteration of every worker."""
    for rank, (training, x) in enumerate(workers):
        training.begin()
        x.grad = torch.from_numpy(gradient(rank, training.step, x.detach().numpy()))
        transport = training._exchange.transport  # pyright: ignore[reportPrivateUsage]
        assert isinstance(transport, SimulatedTransport)
        transport.compute(compute if isinstance(compute, float) else compute[rank])
        training.end()


def top(vector: np.ndarray, kept: int) -> np.ndarray:
    return np.sort(np.argsort(-np.abs(vector), kind="stable")[:kept])


class WrittenOut:
    """x, e and Q of n workers as in section 2.5, float64; the base optimiser is torch's own."""

    def __init__(self, n: int, base: Base = sgd) -> None:
        self.n, self.step, self.applied = n, 0, 0
        self.x = torch.nn.Parameter(torch.from_numpy(START.copy()))
        self.base = base([self.x])
        self.e = np.zeros((n, D))
        self.queue: list[tuple[int, list[tuple[np.ndarray, np.ndarray]]]] = []
        self.gradients = np.zeros(D)

    def apply(self) -> None:
        _, sent = self.queue.pop(0)
        u = np.zeros(D)
        for indices, values in sent:
            u[indices] += values
        self.x.grad = torch.from_numpy(u / self.n)
        self.base.step()
        self.applied += 1

    def iterate(self, staleness: int, kept: int) -> None:
        while self.queue and self.queue[0][0] <= self.step - 1 - staleness:
            self.apply()
        sent = []
        for rank in range(self.n):
            g = gradient(rank, self.step, self.x.detach().numpy())
            self.gradients += g
            v = self.e[rank] + g
            indices = top(v, kept)
            sent.append((indices, v[indices].copy()))
            v[indices] = 0.0
            self.e[rank] = v
        self.queue.append((self.step, sent))
        self.step += 1
