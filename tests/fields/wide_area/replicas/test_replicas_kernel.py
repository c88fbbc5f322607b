"""DeCo-SGD over TCP through links that the kernel keeps slow: what is believed of them, and that weights stay equal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import launch

from acclimate.fields import wide_area
from acclimate.fields.wide_area.replicas.gradients import digest
from acclimate.links.kernel import KernelNetwork

LACKS = KernelNetwork.lacks()
RATE, SIZE, LATENCY = 4e6, 50_000, 0.1
"""A dense gradient takes 0.4 s of a link."""


def trained(rank: int, size: int, folder: Path) -> dict[str, Any]:
    transport = wide_area.LateTransport(wide_area.GlooTransport(timeout=60.0), LATENCY)
    weights = torch.nn.Parameter(torch.zeros(SIZE))
    training = wide_area.DeCoSGD(
        [weights], lambda parameters: torch.optim.SGD(parameters, 0.01), transport=transport, policy=wide_area.DeCo(),
        parity_every=5,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(rank)
    estimator, ratios, reports = training._exchange.estimator, list[float](), list[list[float]]()
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


@pytest.mark.skipif(LACKS is not None, reason=str(LACKS))
def test_a_link_is_never_taken_for_much_faster_than_it_is(tmp_path: Path) -> None:
    """A busy machine may let it look slower, never faster: but for the burst, before anything larger was sent."""
    with KernelNetwork(2, RATE) as network:
        found = launch(trained, 2, tmp_path, network=network)
    assert found[0]["digest"] == found[1]["digest"] and found[0]["ratios"] == found[1]["ratios"]
    for each in found:
        compute, bandwidth, latency = each["reports"][-1]
        assert bandwidth <= 1.25 * RATE and latency >= 0.95 * LATENCY and compute >= 0.05
        assert max(each["ratios"]) <= 2 * RATE * compute / (32 * SIZE) < 0.5
