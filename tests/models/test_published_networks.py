"""Networks of the published benchmarks: their published sizes, and each forward against one written from its formula.

The oracles compute in float64 from tensors by their published names, so they hold structure and names at once.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.anatomy import affine_norms, convolutions_and_norms, everything, first_stage
from acclimate.models import AggregatedResidualNet, BottleneckNet, WideResidualNet, resnet_50, resnext_29, wrn_28_10

Tensors = dict[str, Tensor]


@pytest.mark.parametrize(
    ("build", "everywhere", "convolved", "normed", "first"),
    [
        (wrn_28_10, (36_479_194, 80), (36_472_784, 78), (17_952, 50), (1_640_672, 25)),
        (resnext_29, (6_900_132, 95), (6_797_632, 93), (25_216, 62), (302_592, 30)),
        (resnet_50, (25_557_032, 161), (23_508_032, 159), (53_120, 106), (215_808, 30)),
    ],
)
def test_sizes_are_the_published_ones(build: Callable[[], nn.Module], everywhere, convolved, normed, first):
    with torch.device("meta"):
        model = build()
    found = [
        (sum(p.numel() for p in select(model).values()), len(select(model)))
        for select in (everything, convolutions_and_norms, affine_norms, first_stage)
    ]
    assert found == [everywhere, convolved, normed, first]
    assert not model.training
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


def bn(x: Tensor, t: Tensors, name: str) -> Tensor:
    mean, var, weight, bias = (t[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    shape = (1, -1, 1, 1)
    return (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt() * weight.view(shape) + bias.view(shape)


def stages(t: Tensors, prefix: str) -> list[str]:
    return sorted({key[: key.index(".", len(prefix) + 1)] for key in t if key.startswith(f"{prefix}.")})


def wide(images: Tensor, t: Tensors) -> Tensor:
    x = F.conv2d(images, t["conv1.weight"], padding=1)
    for stage, first in (("block1", 1), ("block2", 2), ("block3", 2)):
        for number, block in enumerate(stages(t, f"{stage}.layer")):
            stride = 1 if number else first
            active = bn(x, t, f"{block}.bn1").relu()
            branch = F.conv2d(active, t[f"{block}.conv1.weight"], stride=stride, padding=1)
            branch = F.conv2d(bn(branch, t, f"{block}.bn2").relu(), t[f"{block}.conv2.weight"], padding=1)
            shortcut = x if number else F.conv2d(active, t[f"{block}.convShortcut.weight"], stride=stride)
            x = shortcut + branch
    return bn(x, t, "bn1").relu().mean((2, 3)) @ t["fc.weight"].T + t["fc.bias"]


def bottleneck(x: Tensor, t: Tensors, block: str, names: tuple[str, ...], stride: int, groups: int = 1) -> Tensor:
    conv1, bn1, conv2, bn2, conv3, bn3 = (f"{block}.{name}" for name in names)
    branch = bn(F.conv2d(x, t[f"{conv1}.weight"]), t, bn1).relu()
    branch = F.conv2d(branch, t[f"{conv2}.weight"], stride=stride, padding=1, groups=groups)
    branch = bn(F.conv2d(bn(branch, t, bn2).relu(), t[f"{conv3}.weight"]), t, bn3)
    if f"{block}.downsample.0.weight" in t:
        x = bn(F.conv2d(x, t[f"{block}.downsample.0.weight"], stride=stride), t, f"{block}.downsample.1")
    return (x + branch).relu()


def aggregated(images: Tensor, t: Tensors) -> Tensor:
    names = ("conv_reduce", "bn_reduce", "conv_conv", "bn", "conv_expand", "bn_expand")
    x = bn(F.conv2d((images - 0.5) / 0.5, t["conv_1_3x3.weight"], padding=1), t, "bn_1").relu()
    for stage, first in (("stage_1", 1), ("stage_2", 2), ("stage_3", 2)):
        for number, block in enumerate(stages(t, stage)):
            x = bottleneck(x, t, block, names, 1 if number else first, groups=4)
    return x.mean((2, 3)) @ t["classifier.weight"].T + t["classifier.bias"]


def fifty(images: Tensor, t: Tensors) -> Tensor:
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).double().view(2, 1, 3, 1, 1)
    names = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
    x = F.conv2d((images - mean) / std, t["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(bn(x, t, "bn1").relu(), 3, stride=2, padding=1)
    for stage, first in (("layer1", 1), ("layer2", 2), ("layer3", 2), ("layer4", 2)):
        for number, block in enumerate(stages(t, stage)):
            x = bottleneck(x, t, block, names, 1 if number else first)
    return x.mean((2, 3)) @ t["fc.weight"].T + t["fc.bias"]


SMALL = [
    (lambda: WideResidualNet(6, depth=16, width=2), wide, 32),
    (lambda: AggregatedResidualNet(6, depth=20, planes=8), aggregated, 32),
    (lambda: BottleneckNet(6, blocks=(2, 1, 2, 1), width=4), fifty, 64),
]


def shaken(build: Callable[[], nn.Module]) -> nn.Module:
    """The model with every tensor drawn anew, so that no norm is the identity."""
    model = build()
    draw = torch.Generator().manual_seed(3)
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 1:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.5
            tensor.copy_(torch.rand(tensor.shape, generator=draw) + low)
    return model.double().eval()


@pytest.mark.parametrize(("build", "oracle", "side"), SMALL, ids=["wide", "aggregated", "bottleneck"])
def test_the_forward_is_the_formula(build: Callable[[], nn.Module], oracle, side: int):
    model = shaken(build)
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        # Mean and standard deviation are kept in float32, rounded.
        torch.testing.assert_close(model(images), oracle(images, model.state_dict()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("build", "oracle", "side"), SMALL, ids=["wide", "aggregated", "bottleneck"])
def test_any_resolution_memory_format_and_seed(build: Callable[[], nn.Module], oracle, side: int):
    before = torch.get_rng_state()
    model = build().eval()
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.rand(2, 3, side + 16, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(images)
        found = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    assert expected.shape == (2, 6)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_normalisation_is_inside_and_not_in_the_state_dict():
    images = torch.rand(2, 3, 32, 32)
    plain, moved = WideResidualNet(4, depth=10, width=1), WideResidualNet(4, depth=10, width=1, mean=(0.5, 0.4, 0.3))
    for model in (plain, moved):
        model.eval()
        assert not {"mean", "std"} & set(model.state_dict())
    with torch.no_grad():
        shift = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
        torch.testing.assert_close(moved(images), plain(images - shift))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WideResidualNet(depth=27), r"depth is 27; expected 6 n \+ 4"),
        (lambda: WideResidualNet(depth=4), r"depth is 4; expected 6 n \+ 4"),
        (lambda: AggregatedResidualNet(depth=28), r"depth is 28; expected 9 n \+ 2"),
        (lambda: AggregatedResidualNet(planes=1, base_width=32), "groups without a channel"),
    ],
)
def test_impossible_sizes_are_refused(build: Callable[[], nn.Module], message: str):
    with pytest.raises(ValueError, match=message):
        build()
