"""Each method's work, counted in multiply-adds, against the bound that its card states."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import acclimate
from acclimate.core.memory import policies
from acclimate.core.method import methods
from acclimate.core.normalization import normalizations
from acclimate.models.residual import ResidualNet
from acclimate.models.transformer import VisionTransformer
from conformance.declarations import subjects

SUBJECTS = {name: spec for name, (spec, _) in subjects().items() if name in methods.classes()}
HEADROOM = 1.15
COUNT = 8


def batch(number: int) -> Tensor:
    """Images of 16 x 16, of uneven contrast, that a small residual network is not sure about."""
    generator = torch.Generator().manual_seed(number)
    contrast = torch.rand(COUNT, 1, 1, 1, generator=generator)
    return (0.5 + (torch.rand(COUNT, 3, 16, 16, generator=generator) - 0.5) * contrast).clamp(0, 1)


def small_net(norm: str) -> nn.Module:
    """As many multiply-adds in its first layer as a real network: few."""
    net = ResidualNet(5, widths=(16, 16, 32), blocks=1, norm=norm, seed=1)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        net.linear.weight.mul_(4)
    return net.eval()


def work(model: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_work_is_within_the_bound(name: str, norm: str) -> None:
    """At most 1.15 times the stated bound in every step, and the dearest step is not far below it.

    Work over a batch of samples taken one by one counts like that over the batch. A method that runs its chosen rows
    again, where rows are independent, does one forward of them more when their share jumps.
    """
    source = batch(99)
    method = methods.build(SUBJECTS[name])
    tokens = "token sequence" in method.card.needs
    net = VisionTransformer(5, 16, patch=2, width=16, depth=2, heads=2) if tokens else small_net(norm)
    if method.__dict__.get("source") is not None:
        method = dataclasses.replace(method, source=(source, torch.arange(COUNT) % 5))  # pyright: ignore[reportCallIssue]
    try:
        adapted = acclimate.adapt(net, method)
    except ValueError as error:
        assert norm == "group" and "batch norm" in str(error).lower(), "only batch norm may be missed here"
        return
    with torch.no_grad():
        inference = work(net, source)
    cost = method.cost()
    observing = normalizations.build(method.normalization).passes()
    probe, _ = policies.build(method.memory).passes(COUNT)  # a forward and a full backward over some samples
    again = not adapted.state.by_batch and "selected_share" in adapted.state
    bound = (cost.bound + observing + again) * method.steps + 3 * probe
    counted = [work(adapted, batch(number)) / inference for number in range(6)]
    assert max(counted) <= HEADROOM * bound, f"{name} states {bound:g} F and does {max(counted):.2f} F"
    if norm == "batch" and "sample" not in cost.memory:  # how full a bank gets depends on the stream
        assert max(counted) >= 0.7 * bound, f"{name} states {bound:g} F and does at most {max(counted):.2f} F"
