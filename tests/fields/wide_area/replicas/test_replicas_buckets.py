"""A hook whose gradients come in several buckets settles where one with a single bucket does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from acclimate.fields.wide_area.network.estimator import Estimator
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.replicas.hook import DelayedHook
from acclimate.links.traces import constant
from acclimate.wire.simulated import SimulatedTransport, world

COMPUTE = 0.05


class Bucket:
    def __init__(self, parameter: torch.nn.Parameter, gradient: torch.Tensor, index: int, last: bool) -> None:
        self.parameters, self.buffer = lambda: [parameter], lambda: gradient
        self.index, self.is_last = lambda: index, lambda: last


class Model(torch.nn.Module):
    """Hands over its gradients as DistributedDataParallel does, a bucket for each parameter."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.parts = torch.nn.ParameterList(torch.zeros(size) for size in sizes)
        self.hook: Callable[..., Any] = lambda *_: None
        self.generator = torch.Generator().manual_seed(0)

    def register_comm_hook(self, state: object, hook: Callable[..., Any]) -> None:
        self.hook = hook

    def backward(self) -> None:
        last = len(self.parts) - 1
        given = [
            self.hook(None, Bucket(part, torch.randn(len(part), generator=self.generator), index, index == last))
            for index, part in enumerate(self.parts)
        ]
        for future in given:
            future.value()


def hooked(sizes: list[int], estimator: Estimator) -> tuple[Any, DelayedHook, SimulatedTransport, float]:
    """A link that takes four computing times for a dense gradient, and two for the latency."""
    rate = 32 * sum(sizes) / (4 * COMPUTE)
    (transport,) = world(1, [(constant(rate), 2 * COMPUTE)])
    model: Any = Model(sizes)
    return model, DelayedHook(model, transport=transport, policy=DeCo(), estimator=estimator), transport, rate


def settled(sizes: list[int], estimator: Estimator, steps: int = 80) -> tuple[DelayedHook, SimulatedTransport, float]:
    model, hook, transport, rate = hooked(sizes, estimator)
    for _ in range(steps):
        transport.compute(COMPUTE)
        model.backward()
    return hook, transport, rate


@pytest.mark.parametrize(
    "sizes", [[24_000], [1_000] * 24, [1_000] * 100, [18_000, *[1_000] * 6], [*[1_000] * 6, 18_000]]
)
def test_buckets_leave_the_setting_as_it_is(sizes: list[int]) -> None:
    hook, transport, rate = settled(sizes, Estimator())
    assert hook.setting.staleness == 3
    assert 0.2 <= hook.setting.ratio <= 0.25  # a quarter passes while a worker computes; a header is 64 bytes
    assert transport.sent_bits / (transport.now() * rate) == pytest.approx(0.95, abs=0.1)


def test_a_checkpoint_keeps_what_is_told_of_the_link() -> None:
    sizes, before, after = [1_000] * 24, Estimator(), Estimator()
    hook, _, rate = settled(sizes, before)
    _, again, _, _ = hooked(sizes, after)
    again.load_state_dict(hook.state_dict())
    assert after.report() == before.report()
    assert after.report().bandwidth == pytest.approx(rate)
