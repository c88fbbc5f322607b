"""Steps without end: learning that is sure to go wrong in time, under guard and without."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import acclimate
from acclimate.methods.tent import Tent

ROWS = 16
RECKLESS = Tent(learning_rate=0.2)


def pixels() -> tuple[Tensor, Tensor]:
    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)


def source() -> nn.Module:
    """Three layers with batch norms, trained on the first thousand digits."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for size in (64, 64, 64):
        layers += [nn.Linear(64, size, bias=False), nn.BatchNorm1d(size), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(64, 10))
    x, y = (part[:1000] for part in pixels())
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(15):
        for index in torch.randperm(1000).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[index] + 0.1 * torch.randn(len(index), 64)), y[index]).backward()
            optimizer.step()
    return net.eval()


def shifting(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The other digits; every hundred batches the light, the contrast and the noise are others."""
    generator = torch.Generator().manual_seed(1)
    x, y = (part[1000:] for part in pixels())
    for step in range(steps):
        if step % 100 == 0:
            light, contrast, noise = (torch.rand(3, generator=generator) * torch.tensor([0.8, 0.8, 0.3])).tolist()
        index = torch.randint(len(x), (ROWS,), generator=generator)
        speckle = torch.randn((ROWS, 64), generator=generator)
        yield (1 - contrast) * x[index] + light + noise * speckle, y[index]


def resident() -> int:
    """The most bytes that this process has held."""
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("steps", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_long_stream_ruins_a_reckless_learner_and_not_the_guarded_one(steps: int) -> None:
    net = source()
    guarded = acclimate.adapt(net, RECKLESS, guard="default")
    free = acclimate.adapt(net, RECKLESS, guard=None)
    parts, early, wrong = 10, 0, torch.zeros(3, 10)
    for step, (x, y) in enumerate(shifting(steps)):
        if step == steps // parts:
            early = resident()
        with torch.no_grad():
            answers = [net(x), guarded(x), free(x)]
        assert all(bool(answer.isfinite().all()) for answer in answers)
        wrong[:, step * parts // steps] += torch.tensor([float((a.argmax(1) != y).sum()) for a in answers])
    errors = 100 * wrong / (ROWS * steps / parts)
    unadapted, kept, lost = errors.mean(1).tolist()
    assert kept <= unadapted + 1, errors
    assert bool((errors[1] <= errors[0] + 1 + 150 / (ROWS * steps / parts) ** 0.5).all()), errors
    assert lost > unadapted + 5, errors
    assert guarded.tally["judged"] == ROWS * steps and guarded.state.batches == steps
    assert resident() - early < 50e6
