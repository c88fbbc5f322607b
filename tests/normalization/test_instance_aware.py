"""Instance-aware batch norm against its golden vectors, a loop over samples and channels, and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.inputs import Call
from acclimate.normalization.instance_aware import InstanceAwareStatistics
from normalization.test_statistics import Whole, fixture, stored


def golden() -> tuple[nn.BatchNorm2d, torch.Tensor]:
    b, c, i, j = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (2, 2, 3, 3)), indexing="ij")
    layer = nn.BatchNorm2d(2).double().eval()
    layer.running_mean.copy_(torch.tensor([0.5, 1.0]))
    layer.running_var.copy_(torch.tensor([1.0, 0.8]))
    return layer, 2 * torch.sin(0.3 * b + 0.5 * c + 0.7 * i + 0.2 * j) + c


def learn(adapted: acclimate.Adapted, x: torch.Tensor) -> torch.Tensor:
    adapted.state.begin(Call((x,), {}, 0))
    return adapted.state.forward(x, answering=False, learning=True)


GOLDEN = [  # k, mu', s2' of (b=0: c=0, 1), (b=1: c=0, 1)
    (4, [[0.5, 1.447256], [0.5, 1.457598]], [[1.0, 0.8], [1.0, 0.8]]),
    (1, [[0.970156, 2.341688], [1.217620, 2.352031]], [[1.0, 0.521878], [0.745907, 0.506997]]),
]


@pytest.mark.parametrize(("k", "mean", "variance"), GOLDEN)
def test_golden_vectors(k, mean, variance):
    layer, x = golden()
    y = acclimate.adapt(Whole(layer), "source", normalization=InstanceAwareStatistics(k=k))(x)
    mean, variance = (torch.tensor(v, dtype=torch.float64)[..., None, None] for v in (mean, variance))
    assert torch.allclose(y, (x - mean) / (variance + 1e-5).sqrt(), rtol=0, atol=3e-6)


ROWS = [  # k, y[0,:,0,0], y[5,:,1,1], sum, sum of squares
    (0.5, (-1.101550, -0.038837, 1.824399), (1.101550, 0.575113, 1.904898), 5.416516, 69.002948),
    (4.0, (-1.555619, 0.054357, 0.637861), (1.131360, 0.739007, 2.956851), 29.071618, 196.994385),
    (0.0, (-1.200927, -0.500463, 2.752777), (1.200927, 0.700463, 2.301853), 0.0, 94.976568),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"k={row[0]}")
def test_published_fixture(row):
    """With k = 4 nothing in this fixture deviates enough: the source's own answers; with 0, instance norm."""
    k, first, last, total, squares = row
    layer, x = fixture()
    y = acclimate.adapt(Whole(layer), "source", normalization=InstanceAwareStatistics(k=k))(x)
    assert y[0, :, 0, 0].tolist() == pytest.approx(first, abs=2e-6)
    assert y[5, :, 1, 1].tolist() == pytest.approx(last, abs=2e-6)
    assert float(y.sum()) == pytest.approx(total, abs=2e-5)
    assert float((y * y).sum()) == pytest.approx(squares, abs=1e-4)


def by_loops(x, means, variances, layer, k):
    """Sample by sample, channel by channel, in Python's floats."""
    out = torch.empty_like(x)
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            values = x[b, c].flatten().tolist()
            size, mu, s2 = len(values), float(means[c]), float(variances[c])
            m = sum(values) / size
            v = sum((value - m) ** 2 for value in values) / (size - 1)
            for_mean = k * math.sqrt((s2 + layer.eps) / size)
            for_variance = k * (s2 + layer.eps) * math.sqrt(2 / (size - 1))
            mean = mu + max(m - mu - for_mean, 0) - max(mu - m - for_mean, 0)
            variance = max(s2 + max(v - s2 - for_variance, 0) - max(s2 - v - for_variance, 0), 0)
            out[b, c] = (x[b, c] - mean) / math.sqrt(variance + layer.eps) * layer.weight[c] + layer.bias[c]
    return out


@pytest.mark.parametrize("k", [0.3, 1.0, 2.0])
def test_learning_takes_the_batch_for_reference_and_moves_the_running_statistics(k):
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization=InstanceAwareStatistics(k=k))
    columns = [x[:, c].flatten().tolist() for c in range(3)]
    means = [sum(v) / len(v) for v in columns]
    variances = [sum((a - m) ** 2 for a in v) / (len(v) - 1) for v, m in zip(columns, means, strict=True)]
    with torch.no_grad():
        assert torch.allclose(learn(adapted, x), by_loops(x, means, variances, layer, k), atol=1e-12)
        mean = [0.99 * a + 0.01 * b for a, b in zip(layer.running_mean.tolist(), means, strict=True)]
        variance = [0.99 * a + 0.01 * b for a, b in zip(layer.running_var.tolist(), variances, strict=True)]
        assert stored(adapted, "mean").tolist() == pytest.approx(mean, abs=1e-12)
        assert stored(adapted, "var").tolist() == pytest.approx(variance, abs=1e-12)
        moved = stored(adapted, "mean"), stored(adapted, "var")
        assert torch.allclose(adapted(x), by_loops(x, *moved, layer, k), atol=1e-12), "answers use the moved ones"
    adapted.reset()
    assert stored(adapted, "mean").tolist() == pytest.approx([0.1, -0.2, 0.05])


def test_gradients_flow_through_the_reference():
    """Where nothing deviates, learning is batch norm with the unbiased variance, gradients included."""
    layer, x = fixture()
    layer.requires_grad_(False)
    x.requires_grad_(True)
    found = learn(acclimate.adapt(Whole(layer), "source", normalization=InstanceAwareStatistics(k=100)), x)
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=1, keepdim=True)
    expected = (x - mean) / (variance + layer.eps).sqrt() * layer.weight.view(1, 3, 1, 1) + layer.bias.view(1, 3, 1, 1)
    weights = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)
    gradients = [torch.autograd.grad((y * weights).sum(), x, retain_graph=True)[0] for y in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-12)


def by_formula(x, layer, k):
    """Learning in one expression of plain tensor operations: the reference by the batch, `S` by two rectifiers."""
    positions = x.shape[2:].numel()
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=1)
    own_variance, own_mean = torch.var_mean(x, (2, 3), correction=1)

    def shrunk(a, limit):
        return (a - limit).relu() - (-a - limit).relu()

    spread = variance + layer.eps
    moved_mean = mean + shrunk(own_mean - mean, k * (spread / positions).sqrt())
    moved = variance + shrunk(own_variance - variance, k * spread * (2 / (positions - 1)) ** 0.5)
    y = (x - moved_mean[..., None, None]) / (moved[..., None, None] + layer.eps).sqrt()
    return y * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)


@pytest.mark.parametrize("k", [0.0, 0.3, 1.0, 2.0])
def test_gradients_where_samples_deviate(k):
    layer, x = fixture()
    x.requires_grad_(True)
    adapted = acclimate.adapt(Whole(layer), "source", normalization=InstanceAwareStatistics(k=k))
    ours = adapted.state.layers[0].requires_grad_(True)
    found, expected = learn(adapted, x), by_formula(x, layer, k)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    weights = torch.sin(torch.arange(x.numel(), dtype=torch.float64)).view_as(x)
    gradients = torch.autograd.grad((found * weights).sum(), (x, ours.weight, ours.bias))
    wanted = torch.autograd.grad((expected * weights).sum(), (x, layer.weight, layer.bias))
    for gradient, oracle in zip(gradients, wanted, strict=True):
        assert torch.allclose(gradient, oracle, rtol=0, atol=1e-11)


def test_answers_do_not_depend_on_the_batch():
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization=InstanceAwareStatistics(k=0.5))
    assert torch.allclose(adapted(x), torch.cat([adapted(row) for row in x.split(1)]), atol=1e-13)
    assert stored(adapted, "mean").tolist() == pytest.approx([0.1, -0.2, 0.05])
    assert not adapted.state.by_batch


def test_one_position_leaves_the_reference():
    layer, x = fixture()
    one = x[:, :, :1, :1]
    adapted = acclimate.adapt(Whole(layer), "source", normalization=InstanceAwareStatistics(k=0))
    assert torch.allclose(adapted(one), layer(one))
    assert torch.allclose(learn(adapted, one[:1]), layer(one[:1])), "one value a channel has no statistics"
    flat = nn.BatchNorm1d(3).double().eval()
    adapted = acclimate.adapt(Whole(flat), "source", normalization="instance_aware")
    assert torch.allclose(adapted(one[:, :, 0, 0]), flat(one[:, :, 0, 0]))


def test_merged_stays_instance_aware():
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization=InstanceAwareStatistics(k=0.5))
    learn(adapted, x)
    merged = adapted.merged()
    with torch.no_grad(), adapted.frozen():
        assert torch.equal(merged(x), adapted(x))
        assert not torch.allclose(merged(x), layer(x))


@pytest.mark.parametrize("bad", [{"k": -1}, {"momentum": 1.5}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="must"):
        InstanceAwareStatistics(**bad)
