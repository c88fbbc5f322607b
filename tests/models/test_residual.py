"""The residual networks against the paper's numbers and the shared checkpoint."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from acclimate.models import ResidualNet, cifar10_resnet20, digits_resnet
from acclimate.models.training import accuracy
from acclimate.streams import Dataset, load_dataset


def test_counts_of_the_twenty_layers():
    model = cifar10_resnet20()
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert (len(convs), len(norms)) == (19, 19)
    # Convolutions 27*16 + 6*9*16*16 + 9*(16*32 + 5*32*32) + 9*(32*64 + 5*64*64), norms 2*688, head 650.
    assert sum(p.numel() for p in model.parameters()) == 432 + 13_824 + 50_688 + 202_752 + 1_376 + 650
    assert len(list(model.parameters())) == 19 + 2 * 19 + 2
    assert all(conv.bias is None for conv in convs)


def test_keys_are_those_of_the_checkpoint():
    keys = list(cifar10_resnet20().state_dict())
    assert len(keys) == 116
    pattern = re.compile(r"(layer[123]\.[012]\.)?(conv|bn)[12]\.\w+|linear\.(weight|bias)")
    assert all(pattern.fullmatch(key) for key in keys)


def test_input_is_normalised_inside():
    model = cifar10_resnet20()
    seen: list[torch.Tensor] = []
    model.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.full((1, 3, 32, 32), 0.5))
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    assert torch.allclose(seen[0][0, :, 3, 5], torch.tensor(expected), atol=1e-6)


def test_shortcuts_skip_pixels_and_pad_channels_on_both_sides():
    block = cifar10_resnet20().layer2[0]
    assert isinstance(block, nn.Module)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(2, 16, 8, 8)
    expected = torch.zeros(2, 32, 4, 4)
    expected[:, 8:24] = F.avg_pool2d(x, 1, stride=2)
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm), ("none", nn.Identity)])
def test_norms(norm: str, kind: type[nn.Module]):
    model = cifar10_resnet20(norm=norm)  # pyright: ignore[reportArgumentType]
    assert sum(isinstance(m, kind) for m in model.modules()) == 19
    others = {nn.BatchNorm2d, nn.GroupNorm, nn.Identity} - {kind}
    assert not any(isinstance(m, other) for m in model.modules() for other in others)
    logits = model(torch.rand(4, 3, 32, 32))
    assert logits.shape == (4, 10) and logits.isfinite().all()
    assert not model.training
    if norm != "batch":
        alone = torch.cat([model(x) for x in torch.rand(4, 3, 32, 32).split(1)])
        assert alone.shape == (4, 10)


def test_a_network_without_norms_learns():
    model = digits_resnet(norm="none").train()
    digits = load_dataset("digits", "train")
    images, labels = digits.read(torch.arange(40)).float() / 255, digits.labels[:40]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for _ in range(50):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_weights_are_drawn_by_the_seed_alone():
    before = torch.get_rng_state()
    first, again, other = cifar10_resnet20(), cifar10_resnet20(), cifar10_resnet20(seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_the_digits_model_is_small():
    model = digits_resnet()
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 7
    assert [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == [8, 8, 8, 16, 16, 32, 32]
    assert sum(p.numel() for p in model.parameters()) < 20_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "layer"}, "norm is 'layer'; expected"),
        ({"norm": "group", "widths": (4, 8, 16)}, "multiples of 8"),
        ({"widths": (16, 8, 8)}, "do not shrink"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        ResidualNet(10, **options)  # pyright: ignore[reportArgumentType]


def subset(dataset: Dataset, size: int) -> Dataset:
    index = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(1))[:size]
    return Dataset(dataset.name, dataset.read(index), dataset.labels[index], dataset.classes)


@pytest.mark.real_data
def test_the_shared_checkpoint_on_a_thousand_images(shared):
    model = cifar10_resnet20(shared / "models/cifar10_resnet20.safetensors")
    assert accuracy(model, subset(load_dataset("cifar10"), 1000)) == pytest.approx(0.882, abs=0.025)


@pytest.mark.slow
@pytest.mark.real_data
def test_the_shared_checkpoint_on_all_images(shared):
    model = cifar10_resnet20(shared / "models/cifar10_resnet20.safetensors")
    assert accuracy(model, load_dataset("cifar10")) == pytest.approx(0.882, abs=0.001)
