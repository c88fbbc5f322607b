"""Ranks that compute at different speeds: a wait for the slower one is no latency."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from acclimate.fields.wide_area.policy.conditions import Report
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.links.traces import constant
from acclimate.wire.simulated import SimulatedTransport, world
from acclimate.wire.transport import Handle, Timing

SIZE, LATENCY, COMPUTE = 1024, 0.02, 0.1


class _Blind:
    """A handle that knows of no packet but the last, as over a real network."""

    def __init__(self, inner: Handle) -> None:
        self._inner = inner

    def wait(self) -> list[torch.Tensor]:
        return self._inner.wait()

    @property
    def timing(self) -> Timing:
        return dataclasses.replace(self._inner.timing, passed=math.nan)


class _BlindTransport(SimulatedTransport):
    def submit(self, packet: torch.Tensor) -> _Blind:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Blind(super().submit(packet))


def trained(computes: tuple[float, float], kind: type[SimulatedTransport], steps: int = 100) -> list[DeCoSGD]:
    """A link that takes four computing times for a dense gradient."""
    ends = world(2, [(constant(SIZE * 32 / (4 * COMPUTE)), LATENCY)])
    ends = [kind(each.rank, 2, each._common) for each in ends]  # pyright: ignore[reportPrivateUsage]
    weights = [torch.nn.Parameter(torch.zeros(SIZE)) for _ in ends]
    workers = [
        DeCoSGD([each], lambda parameters: torch.optim.SGD(parameters, 0.01), transport=end, policy=DeCo())
        for each, end in zip(weights, ends, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for end, worker, each, seconds in zip(ends, workers, weights, computes, strict=True):
            worker.begin()
            end.compute(seconds)
            each.grad = torch.randn(SIZE, generator=generator)
            worker.end()
    return workers


def measured(worker: DeCoSGD) -> Report:
    return worker._exchange.estimator.report()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("fast", [0.05, 0.08, 0.1])
@pytest.mark.parametrize("kind", [SimulatedTransport, _BlindTransport])
def test_a_slower_rank_costs_no_staleness(fast: float, kind: type[SimulatedTransport]) -> None:
    workers = trained((fast, COMPUTE), kind)
    for worker in workers:
        assert worker.setting.staleness == 2
        assert worker.setting.ratio == pytest.approx(1.1**-15)  # the largest on the grid that is no more than 1 / 4


def test_each_rank_measures_its_own_link() -> None:
    for worker, compute in zip(trained((0.05, COMPUTE), SimulatedTransport, 30), (0.05, COMPUTE), strict=True):
        expected = Report(compute, SIZE * 32 / (4 * COMPUTE), LATENCY)
        assert measured(worker) == pytest.approx(expected, rel=1e-6)
