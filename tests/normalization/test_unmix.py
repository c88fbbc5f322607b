"""UnMix-TNS: the published fixture, the formulas by loops, gradients, and the draw it begins with."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.core.normalization import phase
from acclimate.normalization.unmix import UnmixedStatistics
from normalization.test_statistics import Whole, fixture

MEANS = [(0.4, -0.5, 0.3), (-0.2, 0.1, -0.2)]
VARIANCES = [(0.25, 0.6, 0.45), (0.25, 0.6, 0.45)]


def slots(adapted: acclimate.Adapted, key: str) -> Tensor:
    return adapted.state.table.slots[f"normalization.layer.{key}"].tensor


def placed(**settings: float) -> tuple[acclimate.Adapted, nn.BatchNorm2d, Tensor]:
    """Two components where the fixture has them; six samples are a full batch, so that the rate is the momentum."""
    layer, x = fixture()
    settings = {"components": 2, "full_batch": 6} | settings
    adapted = acclimate.adapt(Whole(layer), "source", normalization=UnmixedStatistics(**settings))
    slots(adapted, "means").copy_(torch.tensor(MEANS, dtype=torch.float64))
    slots(adapted, "variances").copy_(torch.tensor(VARIANCES, dtype=torch.float64))
    return adapted, layer, x


def test_published_fixture():
    adapted, _, x = placed()
    y = adapted(x)
    assert y[0, :, 0, 0].tolist() == pytest.approx((-1.516346, -0.007416, 1.348809), abs=2e-6)
    assert y[5, :, 1, 1].tolist() == pytest.approx((1.511825, 0.693035, 2.628874), abs=2e-6)
    assert float(y.sum()) == pytest.approx(15.287401, abs=2e-5)
    assert float((y * y).sum()) == pytest.approx(116.538685, abs=1e-4)
    means = [(0.402154, -0.425144, 0.345330), (-0.198662, 0.099152, -0.217837)]
    variances = [(0.254103, 0.580770, 0.443742), (0.251772, 0.584147, 0.445341)]
    for key, expected in (("means", means), ("variances", variances)):
        for row, values in zip(slots(adapted, key).tolist(), expected, strict=True):
            assert row == pytest.approx(values, abs=1e-6)


def test_published_rate():
    assert UnmixedStatistics().rate(16) == pytest.approx(0.0259963, abs=1e-7)
    assert UnmixedStatistics().rate(64) == pytest.approx(0.1)
    assert UnmixedStatistics.preset("imagenet").rate(16) == pytest.approx(0.1)
    assert UnmixedStatistics.preset("mixed").components == 128


def by_loops(x: Tensor, layer: nn.BatchNorm2d, means: Tensor, variances: Tensor, temperature: float) -> Tensor:
    """Sample by sample, component by component; `p` without gradient, all else in the graph."""
    rows = []
    for row in x:
        mean, variance = row.mean((1, 2)), row.var((1, 2), correction=0)
        alike = [float(mean.detach() @ m / (mean.detach().norm() * m.norm())) for m in means]
        exponents = [math.exp((value - max(alike)) / temperature) for value in alike]
        share = [value / sum(exponents) for value in exponents]
        old = zip(share, means, variances, strict=True)
        each = [((1 - p) * m + p * mean, (1 - p) * v + p * variance) for p, m, v in old]
        m = sum(a for a, _ in each) / len(each)
        v = sum(b for _, b in each) / len(each) + sum(a * a for a, _ in each) / len(each) - m * m
        scale = layer.weight / (v + layer.eps).sqrt()
        rows.append((row - m[:, None, None]) * scale[:, None, None] + layer.bias[:, None, None])
    return torch.stack(rows)


@pytest.mark.parametrize("components", [1, 2, 7])
def test_values_and_gradients(components):
    layer, x = fixture()
    x = torch.cat([x, x.flip(0) * 0.4 + 0.1])
    settings = UnmixedStatistics(components=components, temperature=0.5)
    adapted = acclimate.adapt(Whole(layer), "source", normalization=settings)
    means, variances = slots(adapted, "means").clone(), slots(adapted, "variances").clone()
    x.requires_grad_()
    found, expected = adapted.module(x), by_loops(x, layer, means, variances, 0.5)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    weights = torch.sin(torch.arange(x.numel(), dtype=torch.float64)).view_as(x)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
    assert torch.allclose(*gradients, rtol=0, atol=1e-11)


def test_components_follow_by_loops():
    adapted, _, x = placed(momentum=0.3, temperature=0.3)
    means, variances = torch.tensor(MEANS, dtype=torch.float64), torch.tensor(VARIANCES, dtype=torch.float64)
    adapted(x)
    own, spread = x.mean((2, 3)), x.var((2, 3), correction=0)
    share = torch.tensor([[float(m @ k / (m.norm() * k.norm())) / 0.3 for k in means] for m in own]).softmax(1).double()
    for k in range(2):
        mean = means[k] + 0.3 * sum(share[b, k] * (own[b] - means[k]) for b in range(6)) / 6
        variance = variances[k] + 0.3 * sum(share[b, k] * (spread[b] - variances[k]) for b in range(6)) / 6
        assert torch.allclose(slots(adapted, "means")[k], mean, rtol=0, atol=1e-7)
        assert torch.allclose(slots(adapted, "variances")[k], variance, rtol=0, atol=1e-7)


@pytest.mark.parametrize("what", ["view", "observe", "learn"])
def test_other_forwards_change_nothing_and_rows_are_alone(what):
    adapted, _, x = placed()
    before = slots(adapted, "means").clone()
    with torch.no_grad(), phase(adapted.state.layers, what):
        together = adapted.module(x)
        assert torch.allclose(torch.cat([adapted.module(row) for row in x.split(1)]), together, rtol=0, atol=1e-12)
    assert torch.equal(slots(adapted, "means"), before)


def test_the_draw_has_the_variance_of_the_source():
    """`mean_k V_k` and the variance of `M_k` add up to the source's, in expectation; the draw is the seed's."""
    layer, _ = fixture()
    settings = UnmixedStatistics(components=4000)
    adapted, other = (acclimate.adapt(Whole(layer), "source", normalization=settings, seed=seed) for seed in (3, 4))
    means, variances = slots(adapted, "means"), slots(adapted, "variances")
    assert torch.allclose(variances.mean(0) + means.var(0, correction=0), layer.running_var, rtol=0.05)
    assert torch.allclose(means.mean(0), layer.running_mean, atol=0.06)
    assert not torch.equal(means, slots(other, "means"))
    again = acclimate.adapt(Whole(layer), "source", normalization=settings, seed=3)
    assert torch.equal(means, slots(again, "means"))
    assert not adapted.state.table.generators


def test_one_component_has_no_noise():
    layer, _ = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization=UnmixedStatistics(components=1))
    assert torch.equal(slots(adapted, "means")[0], layer.running_mean)
    assert torch.equal(slots(adapted, "variances")[0], layer.running_var)


def test_a_far_mean_costs_no_digits():
    """Squares are taken about the components' centre: in single precision others would leave nothing of variances."""
    layer, x = fixture()
    far = nn.BatchNorm2d(3).eval()
    far.load_state_dict(layer.state_dict())
    settings = UnmixedStatistics(temperature=1e6)  # equal shares, so that a shift of everything shifts the answer only
    near = acclimate.adapt(Whole(far), "source", normalization=settings)(x.float())
    far.running_mean.add_(1000.0)
    shifted = acclimate.adapt(Whole(far), "source", normalization=settings)((x + 1000).float())
    assert torch.allclose(near, shifted, rtol=0, atol=5e-3)


def test_reset_returns_to_the_draw():
    adapted = acclimate.adapt(Whole(fixture()[0]), "source", normalization="unmix")
    draw, x = slots(adapted, "means").clone(), fixture()[1]
    adapted(x)
    assert not torch.equal(slots(adapted, "means"), draw)
    adapted.reset()
    assert torch.equal(slots(adapted, "means"), draw)


@pytest.mark.parametrize(
    "bad", [{"components": 0}, {"temperature": 0}, {"spread": 1.5}, {"momentum": -1}, {"full_batch": 0}]
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must"):
        UnmixedStatistics(**bad)
