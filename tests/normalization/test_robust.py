"""Robust batch norm against its published fixture and against autograd through the formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.inputs import Call
from acclimate.methods.rotta import RoTTA
from acclimate.normalization.robust import RobustStatistics
from normalization.test_statistics import Whole, fixture, stored

SOURCE = {"mean": [0.1, -0.2, 0.05], "var": [0.5, 1.2, 0.9]}
AFTER = {"mean": [0.10625, -0.1675, 0.0675], "var": [0.498635, 1.170375, 0.928583]}


def learn(adapted: acclimate.Adapted, x: torch.Tensor) -> torch.Tensor:
    adapted.state.begin(Call((x,), {}, 0))
    return adapted.state.forward(x, answering=False, learning=True)


def twins(adapted: acclimate.Adapted, what: str) -> list[float]:
    return adapted.state.table.slots[f"normalization.layer.twin_{what}"].tensor.tolist()


def test_published_fixture():
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization="robust")
    y = learn(adapted, x)
    assert y[0, :, 0, 0].tolist() == pytest.approx((-1.566597, 0.038762, 0.590095), abs=2e-6)
    assert y[5, :, 1, 1].tolist() == pytest.approx((1.124056, 0.732023, 2.873116), abs=2e-6)
    assert float(y.sum()) == pytest.approx(27.447679, abs=2e-5)
    assert float((y * y).sum()) == pytest.approx(190.610562, abs=1e-4)
    for what, values in AFTER.items():
        assert stored(adapted, what).tolist() == pytest.approx(values, abs=1e-6)
        assert twins(adapted, what) == pytest.approx(SOURCE[what], abs=1e-7)
    assert torch.allclose(adapted(x), y.detach(), atol=1e-12), "answers use what is stored, here just updated"
    assert layer.running_mean.tolist() == pytest.approx(SOURCE["mean"])


def test_only_learning_moves_the_statistics():
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization="robust")
    assert torch.allclose(adapted(x), layer(x))
    with adapted.frozen():
        adapted(x)
    adapted.state.begin(Call((x,), {}, 0))
    assert torch.allclose(adapted.state.forward(x, answering=False), layer(x))
    assert stored(adapted, "mean").tolist() == pytest.approx(SOURCE["mean"])
    assert not adapted.state.by_batch


def test_gradients_flow_through_the_share_of_the_batch():
    layer, x = fixture()
    layer.requires_grad_(False)
    x.requires_grad_(True)
    found = learn(acclimate.adapt(Whole(layer), "source", normalization=RobustStatistics(momentum=0.3)), x)
    batch_variance, batch_mean = torch.var_mean(x, (0, 2, 3), correction=0)
    mean = 0.7 * layer.running_mean + 0.3 * batch_mean
    variance = 0.7 * layer.running_var + 0.3 * batch_variance
    mean, variance, weight, bias = (t.view(1, 3, 1, 1) for t in (mean, variance, layer.weight, layer.bias))
    expected = (x - mean) / (variance + layer.eps).sqrt() * weight + bias
    assert torch.allclose(found, expected, atol=1e-7)  # 0.3 in single precision
    weights = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)
    gradients = [torch.autograd.grad((y * weights).sum(), x, retain_graph=True)[0] for y in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-7)
    detached = (x - mean.detach()) / (variance.detach() + layer.eps).sqrt() * weight + bias
    assert not torch.allclose(gradients[0], torch.autograd.grad((detached * weights).sum(), x)[0], atol=1e-3)


def test_with_momentum_one_learning_is_by_the_batch():
    layer, x = fixture()
    y = learn(acclimate.adapt(Whole(layer), "source", normalization=RobustStatistics(momentum=1.0)), x)
    assert torch.allclose(y, acclimate.adapt(Whole(layer), "bn")(x), atol=1e-12)


def test_a_twin_has_statistics_of_its_own():
    layer, x = fixture()
    adapted = acclimate.adapt(nn.Sequential(Whole(layer), nn.Flatten(), nn.Linear(12, 3).double()), RoTTA())
    layers = adapted.state.layers[0]
    with torch.no_grad(), adapted.state.using("student"):
        learn(adapted, x)
    assert layers.get_buffer("twin_mean").tolist() == pytest.approx(AFTER["mean"], abs=1e-6)
    assert layers.get_buffer("running_mean").tolist() == pytest.approx(SOURCE["mean"], abs=1e-7)
    adapted.state.begin(Call((x,), {}, 0))
    answers = []
    for name in ("student", "source"):
        with torch.no_grad(), adapted.state.using(name):
            answers.append(adapted.state.forward(x, answering=False))
    answers.append(adapted.state.forward(x, answering=False).detach())
    assert not torch.allclose(answers[0], answers[2])
    assert torch.allclose(answers[1], answers[2]), "the source's weights run on the statistics of the live ones"
    adapted.reset()
    assert layers.get_buffer("twin_mean").tolist() == pytest.approx(SOURCE["mean"], abs=1e-7)


def test_one_value_a_channel_uses_what_is_stored():
    layer, x = fixture()
    single = x[:1, :, :1, :1]
    adapted = acclimate.adapt(Whole(layer), "source", normalization="robust")
    assert torch.allclose(learn(adapted, single), layer(single))
    assert stored(adapted, "mean").tolist() == pytest.approx(SOURCE["mean"])


def test_merged_is_a_stock_layer_with_the_statistics_of_the_stream():
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization="robust")
    learn(adapted, x)
    merged = adapted.merged()
    assert type(merged.layer) is nn.BatchNorm2d
    assert merged.layer.running_mean.tolist() == pytest.approx(AFTER["mean"], abs=1e-6)
    with adapted.frozen():
        assert torch.allclose(merged(x), adapted(x))


@pytest.mark.parametrize("name", ["robust", "instance_aware"])
def test_missing_source_statistics_are_named(name):
    with pytest.raises(ValueError, match=r"running statistics.*Choose normalization="):
        acclimate.adapt(Whole(nn.BatchNorm2d(3, track_running_stats=False)), "source", normalization=name)


def test_bad_settings():
    with pytest.raises(ValueError, match="must"):
        RobustStatistics(momentum=-0.1)
