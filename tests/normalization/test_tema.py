"""TEMA with layer-wise rectification: published numbers, and two passes against the formulas written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.normalization.rectified import RectifiedStatistics, divergence, shares
from methods.reference import small_net, stream
from normalization.test_statistics import Whole, fixture


def test_published_mixture():
    """Target statistics of the batch (biased), share 0.3."""
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization="tema")
    ours = adapted.state.layers[0]
    ours.target_mean.copy_(x.mean((0, 2, 3)))
    ours.target_var.copy_(x.var((0, 2, 3), correction=0))
    ours.share.fill_(0.3)
    with adapted.frozen():
        y = adapted(x)
    assert y[0, :, 0, 0].tolist() == pytest.approx((-1.706581, -0.196832, 0.082374), abs=2e-6)
    assert y[5, :, 1, 1].tolist() == pytest.approx((1.023949, 0.605417, 1.992962), abs=2e-6)
    assert float(y.sum()) == pytest.approx(8.173410, abs=2e-5)
    assert float((y * y).sum()) == pytest.approx(135.389689, abs=1e-4)


def test_published_divergence():
    layer, x = fixture()
    source, batch = (layer.running_mean, layer.running_var), (x.mean((0, 2, 3)), x.var((0, 2, 3), correction=1))
    assert float(divergence(*source, *batch)) == pytest.approx(0.502789, abs=1e-6)
    gaussians = [
        torch.distributions.Independent(torch.distributions.Normal(m, (v + 1e-5).sqrt()), 1) for m, v in (source, batch)
    ]
    both = [torch.distributions.kl_divergence(*pair) for pair in (gaussians, gaussians[::-1])]
    assert float(divergence(*source, *batch)) == pytest.approx(float(sum(both) / 2), abs=1e-9)


def test_published_shares():
    found = shares(torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64), 0.5)
    assert found.tolist() == pytest.approx([0.006668, 0.087779, 0.25, 0.5], abs=1e-6)
    smoothed = torch.zeros(4, dtype=torch.float64).lerp(found, 0.1)
    assert smoothed.tolist() == pytest.approx([0.000667, 0.008778, 0.025, 0.05], abs=1e-6)
    assert shares(torch.full((3,), 2.0), 0.5).tolist() == [0.25] * 3
    assert shares(torch.tensor([7.0]), 0.5).tolist() == [0.25]


PUBLISHED = {"cifar": (1.0, 1.0, 0.1, 0.1, 0.01, 0.01), "imagenet": (1.0, 0.1, 0.1, 0.01, 0.01, 0.01)}


@pytest.mark.parametrize("table", PUBLISHED)
def test_published_momenta(table):
    found = [RectifiedStatistics(momentum=table).momentum_of(size) for size in (200, 64, 16, 4, 2, 1)]
    assert found == list(PUBLISHED[table])
    assert RectifiedStatistics(momentum=0.3).momentum_of(5) == 0.3


class Written(nn.Module):
    """A batch norm of the formulas: target statistics, divergence and mixture, told which pass it is in."""

    def __init__(self, source: nn.BatchNorm2d, start: str) -> None:
        super().__init__()
        self.source = source
        zero, one = torch.zeros_like(source.running_mean), torch.ones_like(source.running_var)
        self.t = (zero, one) if start == "fresh" else (source.running_mean.clone(), source.running_var.clone())
        self.smoothed, self.share, self.first = 0.0, 0.0, False

    def forward(self, x: Tensor) -> Tensor:
        s_mean, s_var = self.source.running_mean, self.source.running_var
        if self.first:
            batch = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=1)
            self.t = tuple(
                (1 - self.momentum) * old + self.momentum * new for old, new in zip(self.t, batch, strict=True)
            )
            a, b = s_var + 1e-5, self.t[1] + 1e-5
            gap = (s_mean - self.t[0]) ** 2
            forward = 0.5 * (torch.log(b / a) + (a + gap) / b - 1).sum()
            backward = 0.5 * (torch.log(a / b) + (b + gap) / a - 1).sum()
            self.divergence = float(0.5 * forward + 0.5 * backward)
        pi = self.smoothed if self.first else self.share
        m = pi * s_mean + (1 - pi) * self.t[0]
        v = pi * s_var + (1 - pi) * self.t[1] + pi * (1 - pi) * (s_mean - self.t[0]) ** 2
        m, v, weight, bias = (each.view(1, -1, 1, 1) for each in (m, v, self.source.weight, self.source.bias))
        return (x - m) / (v + self.source.eps).sqrt() * weight + bias


def written(net: nn.Sequential, batches: list[Tensor], momentum: float, start: str) -> list[Tensor]:
    twin = copy.deepcopy(net)
    layers = []
    for number, module in enumerate(twin):
        if isinstance(module, nn.BatchNorm2d):
            twin[number] = Written(module, start)
            twin[number].momentum = momentum
            layers.append(twin[number])
    answers = []
    for x in batches:
        for layer in layers:
            layer.first = True
        twin(x)
        found = torch.tensor([layer.divergence for layer in layers], dtype=torch.float64)
        z = ((found - found.mean()) / found.std(correction=0)).clamp(-1, 1)
        for layer, each in zip(layers, z.tolist(), strict=True):
            layer.first, layer.share = False, 0.5 * (each + 1) / 2
        answers.append(twin(x))
        for layer in layers:
            layer.smoothed = 0.9 * layer.smoothed + 0.1 * layer.share
    return answers


def three_norms() -> nn.Sequential:
    """Small net with one more norm, so that shares are not only 0 and the most; statistics of the source away."""
    net = small_net()
    net.insert(6, nn.BatchNorm2d(8).double())
    generator = torch.Generator().manual_seed(5)
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return net.eval()


@pytest.mark.parametrize("start", ["source", "fresh"])
@pytest.mark.parametrize("momentum", [0.1, 0.6, 1.0])
@torch.no_grad()
def test_two_passes_are_the_formulas(momentum, start):
    net, batches = three_norms(), stream(4)
    settings = RectifiedStatistics(momentum=momentum, start=start)
    adapted = acclimate.adapt(net, "source", normalization=settings)
    found = [adapted(x) for x in batches]
    for ours, theirs in zip(found, written(net, batches, momentum, start), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)  # shares are kept in single precision
    assert adapted.last.forwards == 2
    assert 0 < float(adapted.last.values["source_share"]) < 0.5


@torch.no_grad()
def test_without_share_and_memory_it_is_batch_statistics():
    """`most=0`, momentum 1: the batch's mean and unbiased variance."""
    layer, x = fixture()
    settings = RectifiedStatistics(momentum=1.0, most=0.0)
    found = acclimate.adapt(Whole(layer), "source", normalization=settings)(x)
    m, v = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=1, keepdim=True)
    expected = (x - m) / (v + layer.eps).sqrt() * layer.weight.view(1, 3, 1, 1) + layer.bias.view(1, 3, 1, 1)
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)


def test_views_and_frozen_answers_change_nothing():
    adapted, x = acclimate.adapt(three_norms(), "bn", normalization="tema"), stream(2)
    answer = adapted(x[0])
    before = {name: slot.tensor.clone() for name, slot in adapted.state.table.slots.items()}
    with adapted.frozen():
        assert torch.equal(adapted(x[0]), answer), "the latest shares and statistics are those of this batch"
        adapted(x[1])
    assert all(torch.equal(slot.tensor, before[name]) for name, slot in adapted.state.table.slots.items())


def test_merged_is_a_stock_model():
    adapted, x = acclimate.adapt(three_norms(), "bn", normalization="tema"), stream(2)
    adapted(x[0])
    merged = adapted.merged()
    assert [type(module) for module in merged if isinstance(module, nn.Module)].count(nn.BatchNorm2d) == 3
    with adapted.frozen(), torch.no_grad():
        assert torch.allclose(merged(x[1]), adapted(x[1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "bad", [{"momentum": "svhn"}, {"momentum": 2.0}, {"start": "random"}, {"most": 1.5}, {"smoothing": -1}]
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must"):
        RectifiedStatistics(**bad)
