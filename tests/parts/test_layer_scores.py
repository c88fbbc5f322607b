"""Scores of layers, rules over them, shifts of images and layers by name, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from acclimate.models.bottleneck import resnet_50
from acclimate.models.residual import cifar10_resnet20
from acclimate.parts.layer_scores import RULES, chosen, divergence, domain_share
from acclimate.parts.layers_named import first_layers, layers_named
from acclimate.parts.pseudo_domains import PSEUDO_DOMAINS, pseudo_domains


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_published_share():
    """Two views of three images: D = 0.5, E = 2/3."""
    views = [[[0, 0], [1, 0], [2, 0]], [[1, 1], [2, 1], [3, 1]]]
    assert float(domain_share(torch.tensor(views, dtype=torch.float64))) == pytest.approx(0.428571, abs=1e-6)


def test_shares_at_the_ends():
    content = torch.randn(1, 6, 4, generator=generator()).expand(5, 6, 4)
    shifts = torch.randn(5, 1, 4, generator=generator()).expand(5, 6, 4)
    assert float(domain_share(content)) == pytest.approx(0, abs=1e-6)
    assert float(domain_share(shifts)) == pytest.approx(1, abs=1e-6)
    assert float(domain_share(torch.ones(5, 6, 4))) == 0
    assert 0 < float(domain_share(content + shifts)) < 1


def test_divergence_of_normals():
    """Against both directions of torch's own divergence."""
    values = torch.rand(4, 5, 3, generator=generator(), dtype=torch.float64) + 0.2
    one, other = (torch.distributions.Normal(values[place], values[place + 1].sqrt()) for place in (0, 2))
    kl = torch.distributions.kl_divergence
    expected = (kl(one, other) / 2 + kl(other, one) / 2).mean()
    assert torch.allclose(divergence((values[0], values[1]), (values[2], values[3])), expected)


@pytest.mark.parametrize(
    ("rule", "level", "expected"),
    [
        ("mean", 0.5, [False, True, False, True]),
        ("absolute", 0.2, [False, True, True, True]),
        ("absolute", 0.95, [False, False, False, True]),
        ("top", 0.5, [False, True, False, True]),
        ("top", 0.51, [False, True, True, True]),
        ("top", 0.0, [False, False, False, True]),
        ("top", 1.0, [True, True, True, True]),
    ],
)
def test_rules(rule, level, expected):
    assert chosen(torch.tensor([0.1, 0.6, 0.2, 0.9]), rule, level) == expected


@pytest.mark.parametrize("rule", RULES)
def test_one_is_always_chosen(rule):
    assert chosen(torch.tensor([0.0, float("nan"), -1.0]), rule, 1.0)[0]
    assert any(chosen(torch.full((3,), float("nan")), rule, 1.0))


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_equals_are_all_at_least_their_mean(value):
    assert all(chosen(torch.full((19,), value), "mean", 0.5))


def test_shifts_of_images():
    x = torch.rand(4, 3, 32, 32, generator=generator())
    identity, noise, _, contrast, brightness = pseudo_domains(x, (0.0, 1.0), generator(1))
    assert next(iter(PSEUDO_DOMAINS)) == "identity" and len(PSEUDO_DOMAINS) == 5
    assert torch.equal(identity, x)
    assert torch.allclose(brightness, (x + 0.25).clamp(0, 1))
    assert torch.allclose(contrast, 0.4 * x + 0.6 * x.mean((1, 2, 3), keepdim=True), atol=1e-6)
    inside = (x > 0.4) & (x < 0.6)
    assert float((noise - x)[inside].std()) == pytest.approx(0.10, rel=0.1)
    assert torch.equal(noise, pseudo_domains(x, (0.0, 1.0), generator(1))[1]), "the same seed, the same noise"


@pytest.mark.parametrize(("side", "sigma"), [(32, 1.0), (64, 2.0), (128, 2.0), (224, 3.5)])
def test_the_blur_grows_with_the_side(side, sigma):
    """A point becomes a normal density of that deviation; a plane stays as it is to the last pixel."""
    x = torch.zeros(1, 1, side, side, dtype=torch.float64)
    x[0, 0, side // 2, side // 2] = 1
    blurred = pseudo_domains(x, (0.0, 1.0), generator())[2][0, 0]
    place = torch.arange(side, dtype=torch.float64) - side // 2
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-9)
    for axis in (0, 1):
        spread = float((blurred.sum(1 - axis) * place**2).sum()) ** 0.5
        assert spread == pytest.approx(sigma, rel=0.02)
    flat = torch.full((1, 2, side, side), 0.3, dtype=torch.float64)
    assert torch.allclose(pseudo_domains(flat, (0.0, 1.0), generator())[2], flat)


@pytest.mark.parametrize("shape", [(2, 3, 40), (2, 3, 6, 5), (2, 3, 4, 5, 6)])
def test_shifts_of_other_ranks_and_ranges(shape):
    """Values beyond [0, 1] are taken as shares of their own range."""
    x = torch.randn(shape, generator=generator(), dtype=torch.float64)
    low, high = float(x.min()), float(x.max())
    for shifted in pseudo_domains(x, (low, high), generator()):
        assert shifted.shape == x.shape and shifted.dtype == x.dtype
        assert low - 1e-9 <= float(shifted.min()) and float(shifted.max()) <= max(high, 1) + 1e-9
    brighter = pseudo_domains(x, (low, high), generator())[4]
    top = max(high, 1.0)
    assert torch.allclose(brighter, (x + 0.25 * (top - low)).clamp(max=top), atol=1e-9)


def norms(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_first_half_of_a_small_residual_network():
    """The stem, the first stage and half of the second, on to the end of its block."""
    names = norms(cifar10_resnet20())
    found = first_layers(cifar10_resnet20(), names, 0.5)
    assert len(names) == 19
    assert sorted(found, key=names.index) == names[: math.ceil(19 / 2) + 1]
    assert first_layers(cifar10_resnet20(), names, 0.0) == set()
    assert first_layers(cifar10_resnet20(), names, 1.0) == set(names)


def test_the_first_half_of_a_large_residual_network():
    """The stem, two stages and the first block of the third: 28 of 53."""
    net = resnet_50()
    found = first_layers(net, norms(net), 0.5)
    assert len(norms(net)) == 53 and len(found) == 28


def test_layers_by_name_and_stage():
    net = cifar10_resnet20()
    names = norms(net)
    assert layers_named(net, names, ["bn1", "layer3.0"]) == {"bn1", "layer3.0.bn1", "layer3.0.bn2"}
    assert layers_named(net, names, [], [1]) == {name for name in names if name == "bn1" or name.startswith("layer1.")}
    assert layers_named(net, names, ["layer1.0.bn1"], [3]) >= {"layer1.0.bn1", "layer3.2.bn2"}
    assert "bn1" not in layers_named(net, names, [], [3])


@pytest.mark.parametrize(("layers", "stages"), [(["layer9"], []), ([], [4]), ([], [0]), (["layer1.0.bn"], [])])
def test_unknown_layers_are_named(layers, stages):
    net = cifar10_resnet20()
    with pytest.raises(ValueError, match=r"there is no .*3 stages.*bn1"):
        layers_named(net, norms(net), layers, stages)
