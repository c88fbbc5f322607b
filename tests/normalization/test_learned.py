"""Train mode for what is learned from, eval mode for answers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.normalization import owned, phase
from acclimate.normalization.learned import LearnedStatistics
from methods.reference import small_net, stream


def runs(adapted: acclimate.Adapted) -> list[torch.Tensor]:
    return [slot.tensor.clone() for name, slot in adapted.state.table.slots.items() if name.startswith("normal")]


@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_learning_forwards_are_torch_in_train_mode(momentum):
    adapted = acclimate.adapt(small_net(), "source", normalization=LearnedStatistics(momentum=momentum))
    twin = copy.deepcopy(small_net())
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    with torch.no_grad():
        for x in stream(3):
            twin.train()
            with phase(adapted.state.layers, "learn"):
                assert torch.allclose(adapted.module(x), twin(x), rtol=0, atol=1e-10)
            twin.eval()
            assert torch.allclose(adapted(x), twin(x), rtol=0, atol=1e-10)
    expected = [b for name, b in twin.named_buffers() if not name.endswith("tracked")]
    for found, wanted in zip(runs(adapted), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("what", ["answer", "view", "observe"])
def test_other_forwards_use_the_running_statistics(what):
    adapted, net = acclimate.adapt(small_net(), "source", normalization="learned"), small_net()
    before = runs(adapted)
    with torch.no_grad(), phase(adapted.state.layers, what):
        for x in stream(2):
            assert torch.allclose(adapted.module(x), net(x), rtol=0, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(runs(adapted), before, strict=True))


def test_a_twin_is_normalised_by_the_batch_and_moves_nothing():
    adapted, bn = (acclimate.adapt(small_net(), "source", normalization=name) for name in ("learned", "batch"))
    before = runs(adapted)
    with torch.no_grad(), owned(adapted.state.layers, "momentum"), phase(adapted.state.layers, "learn"):
        for x in stream(2):
            assert torch.equal(adapted.module(x), bn(x))
    assert all(torch.equal(a, b) for a, b in zip(runs(adapted), before, strict=True))


def test_one_value_has_no_variance():
    """A row without places is normalised by the running statistics, and leaves them."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    adapted = acclimate.adapt(net, "source", normalization="learned")
    before = runs(adapted)
    with torch.no_grad(), phase(adapted.state.layers, "learn"):
        x = torch.rand(1, 3)
        assert torch.equal(adapted.module(x), net(x))
    assert all(torch.equal(a, b) for a, b in zip(runs(adapted), before, strict=True))


def test_layers_without_running_statistics_use_the_batch():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()).double()
    x = stream(1)[0]
    assert torch.allclose(acclimate.adapt(net, "source", normalization="learned")(x), net.eval()(x), atol=1e-12)


def test_momentum_is_a_share():
    with pytest.raises(ValueError, match="momentum"):
        LearnedStatistics(momentum=1.5)
