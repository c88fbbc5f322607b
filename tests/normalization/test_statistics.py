"""Normalisations against the published fixture: one input, expected outputs to six digits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.inputs import Call
from acclimate.core.normalization import normalizations
from acclimate.normalization.alpha import AlphaStatistics


def fixture() -> tuple[nn.BatchNorm2d, torch.Tensor]:
    """`x[b,c,h,w] = ((7b+5c+3h+2w+bc) mod 11)/5 - 1 + (0.5 (c+1) if b odd else -0.3 c)`, sum 25.8."""
    b, c, h, w = torch.meshgrid(*(torch.arange(n) for n in (6, 3, 2, 2)), indexing="ij")
    shift = torch.where(b % 2 == 1, 0.5 * (c + 1), -0.3 * c).double()
    x = ((7 * b + 5 * c + 3 * h + 2 * w + b * c) % 11).double() / 5 - 1 + shift
    assert float(x.sum()) == pytest.approx(25.8)
    layer = nn.BatchNorm2d(3).double().eval()
    with torch.no_grad():
        layer.running_mean.copy_(torch.tensor([0.1, -0.2, 0.05]))
        layer.running_var.copy_(torch.tensor([0.5, 1.2, 0.9]))
        layer.weight.copy_(torch.tensor([1.0, 0.5, 2.0]))
        layer.bias.copy_(torch.tensor([0.0, 0.1, -0.1]))
    return layer, x


class Whole(nn.Module):
    """Gives the layer's output as logits, so that it can be looked at from outside."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def stored(adapted: acclimate.Adapted, what: str) -> torch.Tensor:
    return adapted.state.table.slots[f"normalization.layer.running_{what}"].tensor


ROWS = [  # normalization, y[0,:,0,0], y[5,:,1,1], sum, sum of squares
    ("source", (-1.555619, 0.054357, 0.637861), (1.131360, 0.739007, 2.956851), 29.071618, 196.994385),
    ("batch", (-1.781701, -0.381121, -0.100000), (0.981754, 0.581121, 1.713495), 0.0, 126.478741),
    (AlphaStatistics(), (-1.574358, 0.022847, 0.541797), (1.114433, 0.724240, 2.782993), 25.789090, 183.530851),
    (
        AlphaStatistics(prior=16),
        (-1.606787, -0.035578, 0.391384),
        (1.085144, 0.697877, 2.514863),
        20.432010,
        164.588428,
    ),
    ("ema", (-1.574358, 0.022847, 0.541797), (1.114433, 0.724240, 2.782993), 25.789090, 183.530851),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_published_fixture(row):
    """The running statistics of `ema` after one batch coincide with alpha-mixing at 0.9."""
    normalization, first, last, total, squares = row
    layer, x = fixture()
    y = acclimate.adapt(Whole(layer), "source", normalization=normalization)(x)
    assert y[0, :, 0, 0].tolist() == pytest.approx(first, abs=2e-6)
    assert y[5, :, 1, 1].tolist() == pytest.approx(last, abs=2e-6)
    assert float(y.sum()) == pytest.approx(total, abs=2e-5)
    assert float((y * y).sum()) == pytest.approx(squares, abs=1e-4)


def test_state_of_running_statistics():
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization="ema")
    adapted(x)
    assert stored(adapted, "mean").tolist() == pytest.approx([0.1125, -0.135, 0.085], abs=1e-6)
    assert stored(adapted, "var").tolist() == pytest.approx([0.499326, 1.143391, 0.963565], abs=1e-6)
    assert layer.running_mean.tolist() == pytest.approx([0.1, -0.2, 0.05])


def test_running_statistics_move_only_with_answers():
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization="ema")
    with adapted.frozen():
        adapted(x)
    assert stored(adapted, "mean").tolist() == pytest.approx([0.1, -0.2, 0.05])
    adapted.state.begin(Call((x,), {}, 0))
    adapted.state.forward(x, answering=False)
    assert stored(adapted, "mean").tolist() == pytest.approx([0.1, -0.2, 0.05])


@pytest.mark.parametrize("name", ["batch", "alpha", "ema"])
def test_one_value_a_channel_falls_back_to_the_source(name):
    layer, x = fixture()
    single = x[:1, :, :1, :1]
    adapted = acclimate.adapt(Whole(layer), "source", normalization=name)
    assert torch.allclose(adapted(single), layer(single))


@pytest.mark.parametrize("name", ["batch", "alpha"])
def test_stateless_ones_are_permutation_equivariant(name):
    layer, x = fixture()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    adapted = acclimate.adapt(Whole(layer), "source", normalization=name)
    assert torch.allclose(adapted(x)[order], adapted(x[order]))


@pytest.mark.parametrize("name", normalizations.classes())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type(name, dtype):
    layer, x = fixture()
    name = {"ttn": "ttn:constant"}.get(name, name)  # by itself it wants source images
    y = acclimate.adapt(Whole(layer.to(dtype)), "source", normalization=name)(x.to(dtype))
    assert y.dtype == dtype
    assert y.isfinite().all()


def test_missing_source_statistics_are_named():
    layer = nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(ValueError, match="running statistics"):
        acclimate.adapt(Whole(layer), "source", normalization="alpha")


@pytest.mark.parametrize(("name", "kind"), [("batch", nn.BatchNorm2d), ("ema", nn.BatchNorm2d)])
def test_merged_models_use_stock_layers(name, kind):
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization=name)
    adapted(x)
    merged = adapted.merged()
    assert type(merged.layer) is kind
    with adapted.frozen():
        assert torch.allclose(merged(x), adapted(x))


@pytest.mark.parametrize("bad", [{"source_weight": 1.5}, {"source_weight": -0.1}, {"prior": -1}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="must"):
        AlphaStatistics(**bad)


class Activated(nn.BatchNorm2d):
    """Norm and activation in one layer, as some model libraries have it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


def activated() -> tuple[nn.Module, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Activated(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return net.eval().double(), torch.rand(8, 3, 12, 12, generator=generator, dtype=torch.float64)


def test_a_batch_norm_of_its_own_kind_keeps_its_forward():
    net, x = activated()
    expected = net[4](net[3](net[2](nn.functional.batch_norm(net[0](x), None, None, training=True).relu())))
    adapted = acclimate.adapt(net, "bn")
    assert torch.allclose(adapted(x), expected, atol=1e-12)
    assert torch.allclose(adapted.merged()(x), expected, atol=1e-12)
    assert net[1].running_mean is not None


def test_a_batch_norm_of_its_own_kind_is_not_replaced_silently():
    with pytest.raises(ValueError, match=r"Activated.*forward of its own"):
        acclimate.adapt(activated()[0], "bn:alpha")


@pytest.mark.parametrize("name", ["batch", "alpha", "ema"])
def test_hooks_of_a_batch_norm_stay(name):
    layer, x = fixture()
    plain = acclimate.adapt(Whole(layer), "source", normalization=name)(x)
    hooked = copy.deepcopy(layer)
    hooked.register_forward_hook(lambda module, args, output: output * 2)
    assert torch.allclose(acclimate.adapt(Whole(hooked), "source", normalization=name)(x), plain * 2)
