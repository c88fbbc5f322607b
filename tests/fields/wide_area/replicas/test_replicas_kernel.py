"""DeCo-SGD over TCP through links that the kernel keeps slow: what is believed of them, and that weights stay equal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from held_frames import latency
from jobs import launch

from acclimate.fields import wide_area
from acclimate.fields.wide_area.replicas.gradients import digest
from acclimate.links.kernel import KernelNetwork

LACKS = KernelNetwork.lacks()
RATE, SIZE, LATENCY = 4e6, 50_000, 0.1
"""A dense gradient takes 0.4 s of a link."""


def trained(rank: int, size: int, folder: Path) -> dict[str, Any]:
    transport = wide_area.LateTransport(wide_area.GlooTransport(timeout=60.0), LATENCY)
    weights, estimator = torch.nn.Parameter(torch.zeros(SIZE)), wide_area.Estimator()
    training = wide_area.DeCoSGD(
        [weights], lambda parameters: torch.optim.SGD(parameters, 0.01), transport=transport, policy=wide_area.DeCo(),
        parity_every=5, estimator=estimator,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(rank)
    ratios, reports = list[float](), list[list[float]]()
    for _ in range(40):
        training.begin()
        time.sleep(0.05)
        weights.grad = torch.randn(SIZE, generator=generator)
        training.end()
        ratios.append(training.setting.ratio)
        reports.append(list(estimator.report()))
    training.drain()
    transport.close()
    return {"digest": str(digest([weights])), "ratios": ratios, "reports": reports}


def told(rank: int, size: int, folder: Path) -> dict[str, Any]:
    """Bandwidths, bit/s, by the spreads of single packets, with real latency."""
    transport, found = wide_area.GlooTransport(timeout=60.0), list[list[float]]()
    for _ in range(5):
        dist.barrier()
        letter = transport.submit(torch.zeros(50_000, dtype=torch.uint8))
        letter.wait()
        timing = letter.timing
        found.append([timing.bits / timing.spread, timing.delivered - timing.submitted])
    transport.close()
    return {"found": found[1:]}  # the first is slowed down by TCP, which does not know the way yet


@pytest.mark.skipif(LACKS is not None, reason=str(LACKS))
def test_a_spread_holds_no_latency(tmp_path: Path) -> None:
    """A packet takes 0.1 s of the link; with the latency, which gloo needs twice, it would look four times slower."""
    with KernelNetwork(2, RATE) as network, latency(network, 0.15):
        found = launch(told, 2, tmp_path, network=network)
    for bandwidth, waited in [pair for each in found for pair in each["found"]]:
        assert waited >= 0.1 + 0.15 and bandwidth <= 1.25 * RATE
    for each in found:
        assert max(bandwidth for bandwidth, _ in each["found"]) >= 0.6 * RATE


@pytest.mark.skipif(LACKS is not None, reason=str(LACKS))
def test_a_link_is_never_taken_for_much_faster_than_it_is(tmp_path: Path) -> None:
    """A busy machine may let it look slower, never faster: but for the burst, before anything larger was sent."""
    with KernelNetwork(2, RATE) as network:
        found = launch(trained, 2, tmp_path, network=network)
    assert found[0]["digest"] == found[1]["digest"] and found[0]["ratios"] == found[1]["ratios"]
    for each in found:
        compute, bandwidth, late = each["reports"][-1]
        assert bandwidth <= 1.6 * RATE and late >= 0.95 * LATENCY and compute >= 0.05
        assert max(each["ratios"]) <= 2 * RATE * compute / (32 * SIZE)
        assert max(bandwidth for _, bandwidth, _ in each["reports"][20:]) >= 0.5 * RATE
        assert max(each["ratios"][20:]) >= 0.5 * RATE * 0.05 / (32 * SIZE)
