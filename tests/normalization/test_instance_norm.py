"""Instance statistics against the published fixture and torch's own instance norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import acclimate
from acclimate.normalization.unmix import UnmixedStatistics
from normalization.test_statistics import Whole, fixture


def test_published_fixture():
    layer, x = fixture()
    y = acclimate.adapt(Whole(layer), "source", normalization="instance")(x)
    assert y[0, :, 0, 0].tolist() == pytest.approx((-1.386697, -0.593349, 3.194095), abs=2e-6)
    assert y[5, :, 1, 1].tolist() == pytest.approx((1.386697, 0.793349, 2.673394), abs=2e-6)
    assert float(y.sum()) == pytest.approx(0, abs=2e-5)
    assert float((y * y).sum()) == pytest.approx(126.473898, abs=1e-4)


@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (2, 3, 3, 2, 4)])
def test_values_and_gradients_are_torchs(shape):
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm3d
    layer = kind(3).double().eval()
    layer.weight.data.copy_(torch.tensor([1.0, 0.5, 2.0]))
    layer.bias.data.copy_(torch.tensor([0.3, -0.1, 0.0]))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    adapted = acclimate.adapt(nn.Sequential(layer), "source", normalization="instance")
    ours = adapted.module(x)
    expected = F.instance_norm(x, weight=layer.weight, bias=layer.bias)
    assert torch.allclose(ours, expected, rtol=0, atol=1e-12)
    weights = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)
    found, wanted = (torch.autograd.grad((y * weights).sum(), x, retain_graph=True)[0] for y in (ours, expected))
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


def test_one_component_of_unmix_is_instance_norm():
    """With K = 1 the share is 1 whatever the component, so that only the sample is left."""
    layer, x = fixture()
    one = acclimate.adapt(Whole(layer), "source", normalization=UnmixedStatistics(components=1))
    assert torch.allclose(one(x), acclimate.adapt(Whole(layer), "source", normalization="instance")(x), atol=1e-12)
